import { existsSync, readFileSync } from 'node:fs'
import { constants as os } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { sleep } from '../../base/clock.ts'
import { BerthError, errnoOf, internal, precondition } from '../../base/errors.ts'
import type { OciResources } from '../../model/oci.ts'
import { OomLog } from '../kernel-log.ts'
import { SyscallError } from '../native.ts'
import { run } from '../spawn.ts'
import type { AppliedLimits, CgroupStats, Cgroups, HugetlbUsage } from './cgroup.ts'
import * as parse from './parse.ts'

/** Jobs are done in milliseconds; a systemd that reloads thousands of units keeps them waiting. */
const JOB_LIMIT_MS = 60_000

/** A started scope that a process never arrives in. */
const ARRIVAL_LIMIT_MS = 30_000
const LOOK_MS = 5

/** A process that has ended is still listed for a moment: half a second in all. */
const EMPTY_WAITS_MS = [1, 2, 4, 8, 16, 32, 64, 128, 256]

/** Where systemd keeps the definition of a transient unit for as long as it knows the unit. */
const TRANSIENT = '/run/systemd/transient'

/** What `systemctl` ends with for a unit that is not loaded (LSB: program is not installed). */
const NOT_LOADED = 5

type Parts = {
  readonly busctl: string
  readonly systemctl: string
  readonly log: Pick<OomLog, 'tellsOf'>
}

/**
 * Control groups of a host where systemd is their one writer (cgroup driver `systemd`): a group is a unit, a slice or
 * a scope, and the unit's name is the last part of its path. What is read, and killing, goes to the files.
 */
export class SystemdCgroups implements Cgroups {
  readonly #files: Cgroups
  readonly #busctl: string
  readonly #systemctl: string
  readonly #log: Parts['log']

  /** @throws BerthError precondition if systemd is not what runs this machine */
  static open(files: Cgroups): SystemdCgroups {
    if (!existsSync('/run/systemd/system')) {
      throw precondition('cgroup_manager is "systemd", but systemd does not run this machine: use "cgroupfs"')
    }
    return new SystemdCgroups(files, {
      busctl: program('busctl'),
      systemctl: program('systemctl'),
      log: new OomLog(),
    })
  }

  /** @param files what is read from, and written where systemd has no property */
  constructor(files: Cgroups, { busctl, systemctl, log }: Parts) {
    this.#files = files
    this.#busctl = busctl
    this.#systemctl = systemctl
    this.#log = log
  }

  get version(): 1 | 2 {
    return this.#files.version
  }

  /** A scope begins with its first process, which `add` brings; a slice can be empty. */
  async create(path: string): Promise<void> {
    const unit = unitOf(path)
    if (unit === undefined) await this.#files.create(path)
    else if (unit.endsWith('.slice')) await this.#command(['start', unit])
  }

  async remove(path: string): Promise<void> {
    const unit = unitOf(path)
    if (unit !== undefined && (this.#files.exists(path) || existsSync(join(TRANSIENT, unit)))) {
      // Stopping a unit would kill what is in it, and for a slice all that is below it.
      await this.#untilEmpty(path)
      await this.#command(['stop', unit])
      // One whose processes the kernel killed for memory stays, as failed, until somebody has taken notice.
      if (existsSync(join(TRANSIENT, unit))) await this.#command(['reset-failed', unit])
    }
    await this.#files.remove(path)
  }

  async #untilEmpty(path: string): Promise<void> {
    for (const ms of EMPTY_WAITS_MS) {
      if (this.#files.pids(path).length === 0) return
      await sleep(ms)
    }
    if (this.#files.pids(path).length > 0) throw new SyscallError(os.errno.EBUSY, 'systemctl stop', path)
  }

  async add(path: string, pid: number): Promise<void> {
    const unit = unitOf(path)
    if (unit === undefined) return await this.#files.add(path, pid)
    if (this.#files.exists(path)) return await this.#files.add(path, pid)
    await this.#startScope(unit, basename(dirname(path)), pid)
    await this.#arrival(unit, pid)
  }

  exists(path: string): boolean {
    return this.#files.exists(path)
  }

  children(path: string): string[] {
    return this.#files.children(path)
  }

  pids(path: string): number[] {
    return this.#files.pids(path)
  }

  kill(path: string): Promise<void> {
    return this.#files.kill(path)
  }

  stats(path: string): CgroupStats | undefined {
    return this.#files.stats(path)
  }

  oomKills(path: string): number {
    return this.#files.oomKills(path)
  }

  /**
   * systemd removes the group of a scope as soon as it is empty, often before its monitor or anybody else has read the
   * counter. In version 2 that of the group above has counted its kills too: where it saw none, no log has to be read.
   * In version 1 a group counts only what was killed in itself, so that only the log knows.
   */
  async wasOomKilled(path: string): Promise<boolean> {
    if (this.#files.exists(path) || unitOf(path) === undefined) return this.#files.oomKills(path) > 0
    const above = dirname(path)
    if (this.version === 2 && this.#files.exists(above) && this.#files.oomKills(above) === 0) return false
    return await this.#log.tellsOf(path)
  }

  hugetlb(path: string): HugetlbUsage[] {
    return this.#files.hugetlb(path)
  }

  applied(path: string): AppliedLimits {
    return this.#files.applied(path)
  }

  /** Through systemd, which would write its own values over ours at its next reload. */
  async writeLimits(path: string, resources: OciResources): Promise<void> {
    const unit = unitOf(path)
    if (unit === undefined) return await this.#files.writeLimits(path, resources)
    const properties = propertiesOf(resources)
    if (properties.length > 0) await this.#command(['set-property', '--runtime', unit, ...properties])
    const { unified, hugepageLimits } = resources
    // It writes its properties after it has answered whoever set them, and before it answers the next: what it has no
    // property for has to come last.
    if (unified !== undefined) await this.#command(['show', '--property=Id', unit])
    await this.#files.writeLimits(path, {
      ...(unified === undefined ? {} : { unified }),
      ...(hugepageLimits === undefined ? {} : { hugepageLimits }),
    })
  }

  /**
   * Delegated: the runtime may make groups below. SIGPIPE is what the unit is stopped with, since monitors ignore it: at
   * a shutdown the container gets its own signal, not one passed on by its monitor.
   */
  async #startScope(unit: string, slice: string, pid: number): Promise<void> {
    const properties = [
      ['PIDs', 'au', '1', `${pid}`],
      ['Slice', 's', slice],
      ['Delegate', 'b', 'true'],
      ['DefaultDependencies', 'b', 'false'],
      ['KillSignal', 'i', '13'],
      ['CollectMode', 's', 'inactive-or-failed'],
    ]
    const manager = [
      'org.freedesktop.systemd1',
      '/org/freedesktop/systemd1',
      'org.freedesktop.systemd1.Manager',
    ]
    const call = ['StartTransientUnit', 'ssa(sv)a(sa(sv))', unit, 'replace', `${properties.length}`]
    const args = ['--quiet', '--no-pager', 'call', ...manager, ...call, ...properties.flat(), '0']
    const { code, stderr } = await run(this.#busctl, {
      args,
      env: {},
      timeoutMs: JOB_LIMIT_MS,
      label: 'busctl',
    })
    if (code !== 0) throw internal(`systemd does not start ${unit}: ${stderr.toString().trim()}`)
  }

  /** The call only queues a job, and its end can be missed: that the process is there is what counts. */
  async #arrival(unit: string, pid: number): Promise<void> {
    const end = performance.now() + ARRIVAL_LIMIT_MS
    for (;;) {
      const groups = cgroupsOf(pid)
      // Ended already: whoever started it learns why.
      if (groups === undefined || groups.includes(`/${unit}`)) return
      if (performance.now() > end) {
        throw new BerthError(
          'deadline',
          `systemd: ${unit} has not got process ${pid} after ${ARRIVAL_LIMIT_MS} ms`,
        )
      }
      await sleep(LOOK_MS)
    }
  }

  async #command(args: readonly string[]): Promise<void> {
    const { code, stderr } = await run(this.#systemctl, {
      args: ['--quiet', '--no-ask-password', ...args],
      env: {},
      timeoutMs: JOB_LIMIT_MS,
      label: `systemctl ${args[0]}`,
    })
    if (code === 0 || code === NOT_LOADED || /not loaded/.test(stderr.toString())) return
    throw internal(`systemctl ${args.join(' ')}: ${stderr.toString().trim() || `exit code ${code}`}`)
  }
}

/** undefined: a group that no unit stands for, such as one made under the other driver. */
function unitOf(path: string): string | undefined {
  return /\.(slice|scope)$/.test(path) ? basename(path) : undefined
}

/** undefined when the process has ended. */
function cgroupsOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined
    throw error
  }
}

/** systemd.resource-control(5) */
export function propertiesOf({ cpu, memory, pids }: OciResources): string[] {
  const properties: string[] = []
  const set = (name: string, value: string | number) => properties.push(`${name}=${value}`)
  const limit = (value: number) => (value > 0 ? value : 'infinity')
  if (cpu?.shares !== undefined && cpu.shares > 0) set('CPUWeight', parse.sharesToWeight(cpu.shares))
  if (cpu?.period !== undefined && cpu.period > 0) set('CPUQuotaPeriodSec', `${cpu.period}us`)
  if (cpu?.quota !== undefined) set('CPUQuota', cpuQuota(cpu.quota, cpu.period))
  if (cpu?.cpus !== undefined) set('AllowedCPUs', cpu.cpus)
  if (cpu?.mems !== undefined) set('AllowedMemoryNodes', cpu.mems)
  if (memory?.limit !== undefined) set('MemoryMax', limit(memory.limit))
  if (memory?.swap !== undefined && memory.swap !== 0) {
    set('MemorySwapMax', memory.swap < 0 ? 'infinity' : Math.max(memory.swap - (memory.limit ?? 0), 0))
  }
  if (memory?.reservation !== undefined) set('MemoryLow', limit(memory.reservation))
  if (pids !== undefined) set('TasksMax', limit(pids.limit))
  return properties
}

/** Per cent of one processor, '' for no quota; the kernel's own period is 100 ms. */
function cpuQuota(quota: number, period: number | undefined): string {
  return quota > 0 ? `${Math.ceil((quota * 100) / (period || 100_000))}%` : ''
}

function program(name: string): string {
  const path = ['/usr/bin', '/bin'].map(directory => join(directory, name)).find(existsSync)
  if (path === undefined) throw precondition(`cgroup_manager is "systemd", but ${name} is not installed`)
  return path
}
