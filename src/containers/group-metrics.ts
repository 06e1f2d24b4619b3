import type { Metric, MetricDescriptor } from '../model/metrics.ts'
import type { AppliedLimits, CgroupStats, HugetlbUsage, IoStats, PressureLine } from '../os/cgroup/cgroup.ts'
import { METRICS as M } from './metric-table.ts'

/** Makes the metrics of one pod or container. */
export type Sampler = (
  descriptor: MetricDescriptor,
  value: bigint | number | undefined,
  ...labels: readonly string[]
) => Metric[]

/** `owner`: the values of the labels that say whose metrics they are. What was not measured makes no metric. */
export function samplerFor(owner: readonly string[]): Sampler {
  return (descriptor, value, ...labels) =>
    value === undefined ? [] : [{ descriptor, labels: [...owner, ...labels], value: BigInt(value) }]
}

/** What the kernel counts for one control group. */
export type GroupReading = {
  readonly stats: CgroupStats
  readonly limits: AppliedLimits
  readonly oomKills: number
  readonly hugetlb: readonly HugetlbUsage[]
  readonly processes: number
}

export function groupMetrics(sample: Sampler, reading: GroupReading): Metric[] {
  const { stats, limits, oomKills, hugetlb, processes } = reading
  const { cpu, pids } = stats
  return [
    ...sample(M.lastSeen, seconds(stats.timestamp)),
    ...sample(M.cpuUsage, seconds(cpu.usageNs), 'total'),
    ...sample(M.cpuUser, seconds(cpu.userNs)),
    ...sample(M.cpuSystem, seconds(cpu.systemNs)),
    ...sample(M.cpuPeriods, cpu.periods),
    ...sample(M.cpuThrottledPeriods, cpu.throttledPeriods),
    ...sample(M.cpuThrottled, seconds(cpu.throttledNs)),
    ...memoryMetrics(sample, stats.memory),
    ...hugetlb.flatMap(({ pageSize, usage, maxUsage }) => [
      ...sample(M.hugetlbUsage, usage, pageSize),
      ...sample(M.hugetlbMaxUsage, maxUsage, pageSize),
    ]),
    ...sample(M.oomEvents, oomKills),
    ...sample(M.processes, processes),
    ...sample(M.threads, pids.current),
    ...sample(M.threadsMax, pids.limit),
    ...limitMetrics(sample, stats.memory, limits),
    ...(stats.pressure === undefined ? [] : pressureMetrics(sample, stats.pressure)),
    ...(stats.io ?? []).flatMap(io => ioMetrics(sample, io)),
  ]
}

function memoryMetrics(sample: Sampler, memory: CgroupStats['memory']): Metric[] {
  // The kernel's figures of a group are those of everything below, too.
  const faults = (type: string, count: bigint) => sample(M.memoryFailures, count, type, 'hierarchy')
  return [
    ...sample(M.memoryUsage, memory.usage),
    ...sample(M.memoryMaxUsage, memory.maxUsage),
    ...sample(M.memoryWorkingSet, memory.workingSet),
    ...sample(M.memoryRss, memory.rss),
    ...sample(M.memoryCache, memory.cache),
    ...sample(M.memoryMappedFile, memory.mappedFile),
    // A kernel that counts no swap lets no group swap by its own account.
    ...sample(M.memorySwap, memory.swap ?? 0n),
    ...sample(M.memoryKernel, memory.kernel),
    ...sample(M.memoryFailcnt, memory.failcnt),
    ...faults('pgfault', memory.pageFaults),
    ...faults('pgmajfault', memory.majorPageFaults),
  ]
}

function limitMetrics(sample: Sampler, memory: CgroupStats['memory'], limits: AppliedLimits): Metric[] {
  const { cpuPeriod, cpuShares, cpuQuota } = limits
  const both = memory.limit === 0n || !memory.swapLimit ? 0n : memory.limit + memory.swapLimit
  return [
    ...sample(M.specCpuPeriod, cpuPeriod),
    ...sample(M.specCpuShares, cpuShares),
    ...sample(M.specCpuQuota, cpuQuota !== undefined && cpuQuota > 0 ? cpuQuota : undefined),
    ...sample(M.specMemoryLimit, memory.limit),
    ...sample(M.specMemoryReservation, memory.reservation),
    ...sample(M.specMemorySwapLimit, both),
  ]
}

function pressureMetrics(
  sample: Sampler,
  { cpu, memory, io }: NonNullable<CgroupStats['pressure']>,
): Metric[] {
  const total = ({ total: ns }: PressureLine) => seconds(ns)
  return [
    ...sample(M.pressureCpuWaiting, total(cpu.some)),
    ...sample(M.pressureCpuStalled, total(cpu.full)),
    ...sample(M.pressureMemoryWaiting, total(memory.some)),
    ...sample(M.pressureMemoryStalled, total(memory.full)),
    ...sample(M.pressureIoWaiting, total(io.some)),
    ...sample(M.pressureIoStalled, total(io.full)),
  ]
}

function ioMetrics(sample: Sampler, { device, readBytes, writeBytes, reads, writes }: IoStats): Metric[] {
  const [major = '', minor = ''] = device.split(':')
  return [
    ...sample(M.fsReads, reads, device),
    ...sample(M.fsReadBytes, readBytes, device),
    ...sample(M.fsWrites, writes, device),
    ...sample(M.fsWriteBytes, writeBytes, device),
    ...sample(M.blkioUsage, readBytes, device, major, minor, 'Read'),
    ...sample(M.blkioUsage, writeBytes, device, major, minor, 'Write'),
  ]
}

/** Whole ones: the interface has no fractions. */
function seconds(ns: bigint): bigint {
  return ns / 1_000_000_000n
}
