import type { OciResources } from '../../model/oci.ts'

/** A moment's reading of one control group. Times in ns, sizes in bytes. */
export type CgroupStats = {
  /** Wall clock, ns since 1970. */
  readonly timestamp: bigint
  readonly cpu: CpuStats
  readonly memory: MemoryStats
  /** `limit` 0: none. */
  readonly pids: { readonly current: bigint; readonly limit: bigint }
  /** Kernels without pressure stall information have none. */
  readonly pressure?: { readonly cpu: Pressure; readonly memory: Pressure; readonly io: Pressure }
  readonly io?: readonly IoStats[]
}

type CpuStats = {
  readonly usageNs: bigint
  readonly userNs: bigint
  readonly systemNs: bigint
  readonly periods: bigint
  readonly throttledPeriods: bigint
  readonly throttledNs: bigint
}

type MemoryStats = {
  readonly usage: bigint
  /** 0: none. */
  readonly limit: bigint
  /** What is left to it when the node runs short; 0: none. */
  readonly reservation: bigint
  readonly maxUsage: bigint
  /** Usage without the inactive file cache: what kubelet evicts by. */
  readonly workingSet: bigint
  readonly rss: bigint
  readonly cache: bigint
  readonly mappedFile: bigint
  readonly pageFaults: bigint
  readonly majorPageFaults: bigint
  /** Swap alone; absent where the kernel does not account it. Limit 0: none. */
  readonly swap?: bigint
  readonly swapLimit?: bigint
  /** How often the limit was met. */
  readonly failcnt?: bigint
  readonly kernel?: bigint
}

export type Pressure = { readonly some: PressureLine; readonly full: PressureLine }

/** Shares of the last 10, 60 and 300 s in per cent; `total` in ns. */
export type PressureLine = {
  readonly avg10: number
  readonly avg60: number
  readonly avg300: number
  readonly total: bigint
}

export type IoStats = {
  /** `major:minor` */
  readonly device: string
  readonly readBytes: bigint
  readonly writeBytes: bigint
  readonly reads: bigint
  readonly writes: bigint
}

/** Huge pages of one size, bytes. */
export type HugetlbUsage = {
  /** `2MB` */
  readonly pageSize: string
  readonly usage: bigint
  /** Version 2 does not keep it. */
  readonly maxUsage?: bigint
}

/** Limits in force; what is not set, or cannot be read, is absent. */
export type AppliedLimits = {
  readonly cpuShares?: number
  readonly cpuQuota?: number
  readonly cpuPeriod?: number
  readonly cpusetCpus?: string
  readonly cpusetMems?: string
  /** bytes */
  readonly memoryLimit?: number
  /** bytes, memory and swap together */
  readonly memorySwapLimit?: number
  readonly pidsLimit?: number
}

/**
 * The control groups of this host, version 1 or 2. A group is named by its absolute path in the hierarchy, the same
 * in every one of version 1.
 */
export interface Cgroups {
  readonly version: 1 | 2
  /** With its parents, under all controllers. Nothing happens if it exists. */
  create(path: string): Promise<void>
  /** With all groups below. Succeeds when there is nothing. @throws EBUSY while it holds a process */
  remove(path: string): Promise<void>
  /** The process is in the group when this returns. */
  add(path: string, pid: number): Promise<void>
  exists(path: string): boolean
  /** Names of the groups directly below, in any of the hierarchies; none if there is no such group. */
  children(path: string): string[]
  /** Of the group and all below; empty if there is no such group. */
  pids(path: string): number[]
  /**
   * SIGKILL to everything in it and below, until it is empty.
   * @throws BerthError deadline if something is left after 10 s
   */
  kill(path: string): Promise<void>
  /** undefined if there is no such group. */
  stats(path: string): CgroupStats | undefined
  /** Processes that the kernel killed here or below for memory; 0 if there is no such group. */
  oomKills(path: string): number
  /** Whether there was such a kill, also in a group that is gone, for as long as anything remembers. */
  wasOomKilled(path: string): Promise<boolean>
  /** By page size; none where the group does not count huge pages. */
  hugetlb(path: string): HugetlbUsage[]
  applied(path: string): AppliedLimits
  /** Writes what is given and leaves the rest. */
  writeLimits(path: string, resources: OciResources): Promise<void>
}
