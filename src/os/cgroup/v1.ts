import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { nowNs } from '../../base/clock.ts'
import { errnoOf } from '../../base/errors.ts'
import type { OciResources } from '../../model/oci.ts'
import type { MountEntry } from '../mountinfo.ts'
import type { AppliedLimits, CgroupStats, Cgroups, HugetlbUsage } from './cgroup.ts'
import * as files from './group-files.ts'
import { hugepageSizes, readHugetlb, writeHugetlbLimits } from './hugetlb.ts'
import * as parse from './parse.ts'
import { readPressure } from './pressure.ts'

/**
 * One hierarchy per controller, or per few of them (kernel: admin-guide/cgroup-v1). On a hybrid host the version 2
 * hierarchy has no controllers, but pressure figures and `cgroup.kill`: it gets every group too.
 */
export class CgroupsV1 implements Cgroups {
  readonly version = 1
  /** Mount point by controller, `name=systemd` included. */
  readonly #mounts: ReadonlyMap<string, string>
  readonly #roots: readonly string[]
  readonly #unified: string | undefined
  /** Where groups are looked for and processes listed: every runtime uses this hierarchy. */
  readonly #main: string
  readonly #hugepageSizes: readonly string[]

  constructor(mounts: readonly MountEntry[], pageSizes: readonly string[] = hugepageSizes()) {
    this.#hugepageSizes = pageSizes
    this.#mounts = new Map(
      mounts
        .filter(entry => entry.type === 'cgroup')
        .flatMap(entry => entry.superOptions.map(option => [option, entry.mountPoint] as const)),
    )
    this.#unified = mounts.find(entry => entry.type === 'cgroup2')?.mountPoint
    this.#roots = [...new Set(mounts.map(entry => entry.mountPoint))]
    this.#main = this.#mounts.get('memory') ?? this.#roots[0] ?? ''
  }

  async create(path: string): Promise<void> {
    const groups = files.ancestors(files.checkGroupPath(path))
    const cpuset = this.#mounts.get('cpuset')
    for (const root of this.#roots) {
      let parent = root
      for (const group of groups) {
        const dir = join(root, group)
        files.makeGroup(dir)
        if (root === cpuset) inheritCpuset(parent, dir)
        parent = dir
      }
    }
  }

  async remove(path: string): Promise<void> {
    for (const dir of this.#dirs(path)) files.removeGroup(dir)
  }

  async add(path: string, pid: number): Promise<void> {
    for (const dir of this.#dirs(path)) files.writeFile(dir, 'cgroup.procs', `${pid}`)
  }

  exists(path: string): boolean {
    return existsSync(join(this.#main, files.checkGroupPath(path)))
  }

  children(path: string): string[] {
    return [...new Set(this.#dirs(path).flatMap(files.childrenOf))]
  }

  pids(path: string): number[] {
    files.checkGroupPath(path)
    const lists = [this.#main, ...(this.#unified === undefined ? [] : [this.#unified])]
    return [...new Set(lists.flatMap(root => files.pidsIn(join(root, path))))]
  }

  async kill(path: string): Promise<void> {
    files.checkGroupPath(path)
    const strike = () => {
      if (this.#unified !== undefined) files.killGroup(join(this.#unified, path))
      files.killGroup(join(this.#main, path))
      this.#thaw(path)
    }
    await files.killUntilEmpty(path, strike, () => this.pids(path))
  }

  /** A frozen process takes no signal, not even SIGKILL, until it is thawed. */
  #thaw(path: string): void {
    const freezer = this.#mounts.get('freezer')
    if (freezer === undefined) return
    for (const dir of files.groupsIn(join(freezer, path))) {
      if (files.readFile(dir, 'freezer.state').trim() !== 'THAWED')
        files.writeFile(dir, 'freezer.state', 'THAWED')
    }
  }

  stats(path: string): CgroupStats | undefined {
    if (!this.exists(path)) return undefined
    const pids = this.#reader('pids', path)
    const blkio = this.#reader('blkio', path)
    const pressure = this.#unified === undefined ? undefined : readPressure(join(this.#unified, path))
    return {
      timestamp: nowNs(),
      cpu: this.#cpuStats(path),
      memory: memoryStats(this.#reader('memory', path)),
      pids: { current: parse.parseLimit(pids('pids.current')), limit: parse.parseLimit(pids('pids.max')) },
      ...(pressure === undefined ? {} : { pressure }),
      io: parse.parseBlkio(
        blkio('blkio.throttle.io_service_bytes_recursive'),
        blkio('blkio.throttle.io_serviced_recursive'),
      ),
    }
  }

  #cpuStats(path: string): CgroupStats['cpu'] {
    const acct = this.#reader('cpuacct', path)
    const stat = parse.parseFlatKeyed(this.#reader('cpu', path)('cpu.stat'))
    return {
      usageNs: parse.parseLimit(acct('cpuacct.usage')),
      userNs: parse.parseLimit(acct('cpuacct.usage_user')),
      systemNs: parse.parseLimit(acct('cpuacct.usage_sys')),
      periods: stat.get('nr_periods') ?? 0n,
      throttledPeriods: stat.get('nr_throttled') ?? 0n,
      throttledNs: stat.get('throttled_time') ?? 0n,
    }
  }

  oomKills(path: string): number {
    const memory = this.#mounts.get('memory')
    if (memory === undefined) return 0
    // The counter of a group does not contain those below it.
    return files
      .groupsIn(join(memory, files.checkGroupPath(path)))
      .map(dir =>
        Number(parse.parseFlatKeyed(files.readFile(dir, 'memory.oom_control')).get('oom_kill') ?? 0n),
      )
      .reduce((sum, kills) => sum + kills, 0)
  }

  /** The counter goes with its group, which whoever made it removes after the monitor has read it. */
  async wasOomKilled(path: string): Promise<boolean> {
    return this.oomKills(path) > 0
  }

  hugetlb(path: string): HugetlbUsage[] {
    const root = this.#mounts.get('hugetlb')
    files.checkGroupPath(path)
    return root === undefined ? [] : readHugetlb(join(root, path), this.version, this.#hugepageSizes)
  }

  applied(path: string): AppliedLimits {
    const cpu = this.#reader('cpu', path)
    const cpuset = this.#reader('cpuset', path)
    const memory = this.#reader('memory', path)
    const quota = cpu('cpu.cfs_quota_us')
    return parse.present({
      cpuShares: parse.parseNumber(cpu('cpu.shares')),
      cpuQuota: quota === '' ? undefined : (parse.parseNumber(quota) ?? -1),
      cpuPeriod: parse.parseNumber(cpu('cpu.cfs_period_us')),
      cpusetCpus: cpuset('cpuset.cpus').trim() || undefined,
      cpusetMems: cpuset('cpuset.mems').trim() || undefined,
      memoryLimit: parse.parseNumber(memory('memory.limit_in_bytes')),
      memorySwapLimit: parse.parseNumber(memory('memory.memsw.limit_in_bytes')),
      pidsLimit: parse.parseNumber(this.#reader('pids', path)('pids.max')),
    })
  }

  async writeLimits(path: string, resources: OciResources): Promise<void> {
    files.checkGroupPath(path)
    for (const { controller, writes } of limitFiles(resources)) {
      const root = this.#mounts.get(controller)
      if (root !== undefined) writeInSomeOrder(join(root, path), writes)
    }
    const root = this.#mounts.get('hugetlb')
    if (root !== undefined) writeHugetlbLimits(join(root, path), this.version, resources.hugepageLimits ?? [])
  }

  #dirs(path: string): string[] {
    files.checkGroupPath(path)
    return this.#roots.map(root => join(root, path))
  }

  /** Reads files of the group in one controller's hierarchy; '' where there is none. */
  #reader(controller: string, path: string): (file: string) => string {
    const root = this.#mounts.get(controller)
    const dir = join(root ?? '', files.checkGroupPath(path))
    return file => (root === undefined ? '' : files.readFile(dir, file))
  }
}

/** A new cpuset is empty, and takes no process until it has processors and memory nodes. */
function inheritCpuset(parent: string, dir: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (files.readFile(dir, file).trim() !== '') continue
    files.writeFile(dir, file, files.readFile(parent, file).trim())
  }
}

function memoryStats(read: (file: string) => string): CgroupStats['memory'] {
  const stat = parse.parseFlatKeyed(read('memory.stat'))
  const value = (key: string) => stat.get(key) ?? 0n
  const number = (file: string) => parse.parseLimit(read(file))
  const usage = number('memory.usage_in_bytes')
  const limit = number('memory.limit_in_bytes')
  const both = number('memory.memsw.limit_in_bytes')
  const swap = stat.get('total_swap')
  return {
    usage,
    limit,
    reservation: number('memory.soft_limit_in_bytes'),
    maxUsage: number('memory.max_usage_in_bytes'),
    workingSet: parse.workingSet(usage, value('total_inactive_file')),
    rss: value('total_rss'),
    cache: value('total_cache'),
    mappedFile: value('total_mapped_file'),
    pageFaults: value('total_pgfault'),
    majorPageFaults: value('total_pgmajfault'),
    failcnt: number('memory.failcnt'),
    kernel: number('memory.kmem.usage_in_bytes'),
    ...(swap === undefined ? {} : { swap, swapLimit: both > limit && limit > 0n ? both - limit : 0n }),
  }
}

type Writes = ReadonlyArray<readonly [file: string, value: string]>

/** What each controller must be told, but that of huge pages. */
export function limitFiles(resources: OciResources): Array<{ controller: string; writes: Writes }> {
  const { cpu, memory, pids } = resources
  const list = (...pairs: Array<[string, number | string | undefined]>): Writes =>
    pairs.flatMap(([file, value]) =>
      value === undefined || value === '' ? [] : [[file, `${value}`] as const],
    )
  return [
    { controller: 'cpu', writes: list(['cpu.shares', cpu?.shares]) },
    {
      controller: 'cpu',
      writes: list(['cpu.cfs_period_us', cpu?.period], ['cpu.cfs_quota_us', cpu?.quota]),
    },
    { controller: 'cpuset', writes: list(['cpuset.cpus', cpu?.cpus], ['cpuset.mems', cpu?.mems]) },
    {
      controller: 'memory',
      writes: list(
        ['memory.limit_in_bytes', memory?.limit],
        ['memory.memsw.limit_in_bytes', memory?.swap === 0 ? undefined : memory?.swap],
      ),
    },
    { controller: 'memory', writes: list(['memory.soft_limit_in_bytes', memory?.reservation]) },
    {
      controller: 'pids',
      writes: list(['pids.max', pids === undefined ? undefined : pids.limit > 0 ? pids.limit : 'max']),
    },
  ]
}

/**
 * Pairs bound each other (memory ≤ memory + swap; quota / period ≤ the parent's): which comes first depends on
 * whether they rise or fall, so a refused order is tried the other way round.
 */
function writeInSomeOrder(dir: string, writes: Writes): void {
  const write = (order: Writes) => {
    for (const [file, value] of order) files.writeFile(dir, file, value)
  }
  try {
    write(writes)
  } catch (error) {
    if (writes.length < 2 || errnoOf(error) !== 'EINVAL') throw error
    write(writes.toReversed())
  }
}
