import type { LinuxResources } from '../../model/security.ts'
import type {
  LinuxContainerResources,
  LinuxContainerResources__Output,
} from '../generated/runtime/v1/LinuxContainerResources.ts'
import { clamped, each, integer, line, matching, textMap } from './fields.ts'

const CPU_LIST = /^([0-9]+([,-][0-9]+)*)?$/
const PAGE_SIZE = /^[0-9]{1,12}(KB|MB|GB)$/
/** A file of a cgroup: no slash, so it cannot leave its directory. */
const CGROUP_FILE = /^[a-z0-9_]+(\.[A-Za-z0-9_]+)+$/

/** µs: what cpu.cfs_period_us takes. */
const PERIOD = { min: 1000, max: 1_000_000 }
/** µs: the shortest quota the kernel takes. */
const MIN_QUOTA = 1000

/** undefined for an absent message: nothing was asked for. */
export function toResources(
  field: string,
  wire: LinuxContainerResources__Output | null,
): LinuxResources | undefined {
  if (wire === null) return undefined
  const period = clamped(`${field}.cpu_period`, wire.cpu_period, 0)
  if (period !== 0) integer(`${field}.cpu_period`, period, PERIOD.min, PERIOD.max)
  const quota = clamped(`${field}.cpu_quota`, wire.cpu_quota, -1)
  if (quota > 0) clamped(`${field}.cpu_quota`, wire.cpu_quota, MIN_QUOTA)
  for (const [file, value] of Object.entries(wire.unified)) {
    matching(`${field}.unified`, file, CGROUP_FILE, 'names of cgroup files')
    line(`${field}.unified[${file}]`, value)
  }
  return {
    cpuPeriod: period,
    cpuQuota: quota,
    cpuShares: clamped(`${field}.cpu_shares`, wire.cpu_shares, 0),
    memoryLimit: clamped(`${field}.memory_limit_in_bytes`, wire.memory_limit_in_bytes, -1),
    memorySwapLimit: clamped(`${field}.memory_swap_limit_in_bytes`, wire.memory_swap_limit_in_bytes, -1),
    oomScoreAdj: integer(`${field}.oom_score_adj`, wire.oom_score_adj, -1000, 1000),
    cpusetCpus: matching(`${field}.cpuset_cpus`, wire.cpuset_cpus, CPU_LIST, 'a list like 0-2,4'),
    cpusetMems: matching(`${field}.cpuset_mems`, wire.cpuset_mems, CPU_LIST, 'a list like 0-2,4'),
    hugepageLimits: each(`${field}.hugepage_limits`, wire.hugepage_limits, (at, { page_size, limit }) => ({
      pageSize: matching(`${at}.page_size`, page_size, PAGE_SIZE, 'a size like 2MB'),
      limit: clamped(`${at}.limit`, limit, 0),
    })),
    unified: textMap(wire.unified),
  }
}

export function fromResources(resources: LinuxResources): LinuxContainerResources {
  return {
    cpu_period: resources.cpuPeriod,
    cpu_quota: resources.cpuQuota,
    cpu_shares: resources.cpuShares,
    memory_limit_in_bytes: resources.memoryLimit,
    memory_swap_limit_in_bytes: resources.memorySwapLimit,
    oom_score_adj: resources.oomScoreAdj,
    cpuset_cpus: resources.cpusetCpus,
    cpuset_mems: resources.cpusetMems,
    hugepage_limits: resources.hugepageLimits.map(({ pageSize, limit }) => ({ page_size: pageSize, limit })),
    unified: resources.unified,
  }
}
