import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { nowNs } from '../../base/clock.ts'
import { errnoOf, invalid } from '../../base/errors.ts'
import type { OciResources } from '../../model/oci.ts'
import type { AppliedLimits, CgroupStats, Cgroups, HugetlbUsage } from './cgroup.ts'
import * as files from './group-files.ts'
import { hugepageSizes, readHugetlb, writeHugetlbLimits } from './hugetlb.ts'
import * as parse from './parse.ts'
import { readPressure } from './pressure.ts'

/** Without these no limit of a pod could be enforced; others are used if the kernel has them. */
const REQUIRED = ['cpu', 'memory', 'pids']

/** The unified hierarchy (kernel: admin-guide/cgroup-v2). */
export class CgroupsV2 implements Cgroups {
  readonly version = 2
  readonly #root: string
  readonly #hugepageSizes: readonly string[]

  constructor(root: string, pageSizes: readonly string[] = hugepageSizes()) {
    this.#root = root
    this.#hugepageSizes = pageSizes
  }

  async create(path: string): Promise<void> {
    let parent = this.#root
    for (const group of files.ancestors(files.checkGroupPath(path))) {
      enableControllers(parent)
      const dir = join(this.#root, group)
      files.makeGroup(dir)
      parent = dir
    }
  }

  async remove(path: string): Promise<void> {
    files.removeGroup(this.#dir(path))
  }

  async add(path: string, pid: number): Promise<void> {
    files.writeFile(this.#dir(path), 'cgroup.procs', `${pid}`)
  }

  exists(path: string): boolean {
    return existsSync(this.#dir(path))
  }

  children(path: string): string[] {
    return files.childrenOf(this.#dir(path))
  }

  pids(path: string): number[] {
    return files.pidsIn(this.#dir(path))
  }

  async kill(path: string): Promise<void> {
    const dir = this.#dir(path)
    await files.killUntilEmpty(
      path,
      () => files.killGroup(dir),
      () => files.pidsIn(dir),
    )
  }

  stats(path: string): CgroupStats | undefined {
    const dir = this.#dir(path)
    if (!existsSync(dir)) return undefined
    const pressure = readPressure(dir)
    return {
      timestamp: nowNs(),
      cpu: cpuStats(dir),
      memory: memoryStats(dir),
      pids: {
        current: parse.parseLimit(files.readFile(dir, 'pids.current')),
        limit: parse.parseLimit(files.readFile(dir, 'pids.max')),
      },
      ...(pressure === undefined ? {} : { pressure }),
      io: parse.parseIoStat(files.readFile(dir, 'io.stat')),
    }
  }

  oomKills(path: string): number {
    return Number(
      parse.parseFlatKeyed(files.readFile(this.#dir(path), 'memory.events')).get('oom_kill') ?? 0n,
    )
  }

  /** The counter goes with its group, which whoever made it removes after the monitor has read it. */
  async wasOomKilled(path: string): Promise<boolean> {
    return this.oomKills(path) > 0
  }

  hugetlb(path: string): HugetlbUsage[] {
    return readHugetlb(this.#dir(path), this.version, this.#hugepageSizes)
  }

  applied(path: string): AppliedLimits {
    const dir = this.#dir(path)
    const read = (file: string) => files.readFile(dir, file)
    const max = parse.parseCpuMax(read('cpu.max'))
    const weight = parse.parseNumber(read('cpu.weight'))
    const memory = parse.parseNumber(read('memory.max'))
    const swap = parse.parseNumber(read('memory.swap.max'))
    return parse.present({
      cpuShares: weight === undefined ? undefined : parse.weightToShares(weight),
      cpuQuota: max?.quota,
      cpuPeriod: max?.period,
      cpusetCpus: read('cpuset.cpus').trim() || undefined,
      cpusetMems: read('cpuset.mems').trim() || undefined,
      memoryLimit: memory,
      memorySwapLimit: memory === undefined || swap === undefined ? undefined : memory + swap,
      pidsLimit: parse.parseNumber(read('pids.max')),
    })
  }

  async writeLimits(path: string, resources: OciResources): Promise<void> {
    const dir = this.#dir(path)
    const quota = parse.parseCpuMax(files.readFile(dir, 'cpu.max'))?.quota ?? -1
    const { unified = {}, hugepageLimits = [], ...rest } = resources
    writeByLine(dir, limitFiles(rest, quota))
    writeHugetlbLimits(dir, this.version, hugepageLimits)
    // Last: what names a file means just that.
    writeByLine(dir, limitFiles({ unified }, quota))
  }

  #dir(path: string): string {
    return join(this.#root, files.checkGroupPath(path))
  }
}

/** The kernel takes one line at a time, such as that of one device in io.max. */
function writeByLine(dir: string, writes: ReturnType<typeof limitFiles>): void {
  for (const [file, value] of writes) {
    for (const line of value.split('\n')) if (line !== '') files.writeFile(dir, file, line)
  }
}

/** Hands down to the children of `dir` what `dir` itself has. */
function enableControllers(dir: string): void {
  const has = files.readFile(dir, 'cgroup.controllers').split(/\s+/).filter(Boolean)
  const enabled = new Set(files.readFile(dir, 'cgroup.subtree_control').split(/\s+/))
  for (const controller of has) {
    if (enabled.has(controller)) continue
    try {
      // One at a time: a single refused controller would refuse them all.
      files.writeFile(dir, 'cgroup.subtree_control', `+${controller}`)
    } catch (error) {
      if (REQUIRED.includes(controller) || errnoOf(error) === undefined) throw error
    }
  }
}

function cpuStats(dir: string): CgroupStats['cpu'] {
  const stat = parse.parseFlatKeyed(files.readFile(dir, 'cpu.stat'))
  const ns = (key: string) => (stat.get(key) ?? 0n) * 1000n
  return {
    usageNs: ns('usage_usec'),
    userNs: ns('user_usec'),
    systemNs: ns('system_usec'),
    periods: stat.get('nr_periods') ?? 0n,
    throttledPeriods: stat.get('nr_throttled') ?? 0n,
    throttledNs: ns('throttled_usec'),
  }
}

function memoryStats(dir: string): CgroupStats['memory'] {
  const read = (file: string) => files.readFile(dir, file)
  const stat = parse.parseFlatKeyed(read('memory.stat'))
  const value = (key: string) => stat.get(key) ?? 0n
  const usage = parse.parseLimit(read('memory.current'))
  const swap = read('memory.swap.current')
  const peak = read('memory.peak') // Linux 5.19
  return {
    usage,
    limit: parse.parseLimit(read('memory.max')),
    reservation: parse.parseLimit(read('memory.low')),
    maxUsage: peak === '' ? usage : parse.parseLimit(peak),
    workingSet: parse.workingSet(usage, value('inactive_file')),
    rss: value('anon'),
    cache: value('file'),
    mappedFile: value('file_mapped'),
    pageFaults: value('pgfault'),
    majorPageFaults: value('pgmajfault'),
    failcnt: parse.parseFlatKeyed(read('memory.events')).get('max') ?? 0n,
    kernel: value('kernel'), // Linux 5.18
    ...(swap === ''
      ? {}
      : { swap: parse.parseLimit(swap), swapLimit: parse.parseLimit(read('memory.swap.max')) }),
  }
}

/**
 * Files and values, without those of huge pages, in the order in which they must be written. `currentQuota` (-1: none) is kept when only a period
 * is given, since both share a file.
 */
export function limitFiles(
  resources: OciResources,
  currentQuota: number,
): Array<[file: string, value: string]> {
  const { cpu, memory, pids, unified = {} } = resources
  const writes: Array<[string, string]> = []
  if (memory?.limit !== undefined) writes.push(['memory.max', orMax(memory.limit)])
  const swap = swapAlone(memory?.limit, memory?.swap)
  if (swap !== undefined) writes.push(['memory.swap.max', swap])
  if (memory?.reservation !== undefined) writes.push(['memory.low', orMax(memory.reservation)])
  if (cpu?.shares !== undefined && cpu.shares > 0) {
    writes.push(['cpu.weight', `${parse.sharesToWeight(cpu.shares)}`])
  }
  if (cpu?.quota !== undefined || cpu?.period !== undefined) {
    const quota = orMax(cpu.quota ?? currentQuota)
    writes.push(['cpu.max', cpu.period === undefined ? quota : `${quota} ${cpu.period}`])
  }
  if (cpu?.cpus !== undefined) writes.push(['cpuset.cpus', cpu.cpus])
  if (cpu?.mems !== undefined) writes.push(['cpuset.mems', cpu.mems])
  if (pids !== undefined) writes.push(['pids.max', orMax(pids.limit)])
  for (const [file, value] of Object.entries(unified)) {
    if (!/^[a-z]+\.[A-Za-z0-9._]+$/.test(file)) {
      throw invalid(`unified[${JSON.stringify(file)}]`, 'expected a cgroup v2 file name such as memory.high')
    }
    writes.push([file, value])
  }
  return writes
}

/** The OCI value counts memory and swap together, version 2 swap alone. */
function swapAlone(limit: number | undefined, both: number | undefined): string | undefined {
  if (both === undefined || both === 0) return undefined
  if (both < 0) return 'max'
  return limit === undefined || limit <= 0 ? undefined : `${Math.max(both - limit, 0)}`
}

function orMax(limit: number): string {
  return limit > 0 ? `${limit}` : 'max'
}
