import { invalid } from '../../base/errors.ts'
import type { OciResources } from '../../model/oci.ts'
import type { LinuxResources } from '../../model/security.ts'
import type { HostFacts } from './spec.ts'

/** Limits of the kernel's CPU bandwidth control, microseconds. */
const MIN_QUOTA = 1000
const MIN_PERIOD = 1000
const MAX_PERIOD = 1_000_000
/** What cpu.shares takes. */
const MIN_SHARES = 2
const MAX_SHARES = 262_144

/** Hugepage sizes are few; a longer list or map is no honest request. */
const MAX_ENTRIES = 64

type CgroupFacts = Pick<HostFacts, 'cgroupVersion' | 'swapAccounting' | 'hugepageSizes'>

/**
 * The OCI form of CRI resources: for the spec, and alone for an update. What is 0 or empty is left out, so the
 * kernel's value stays. They were checked before.
 */
export function toOciResources(resources: LinuxResources, host: CgroupFacts): OciResources {
  const result: OciResources = {}
  const cpu = cpuOf(resources)
  if (Object.keys(cpu).length > 0) result.cpu = cpu
  const memory = memoryOf(resources, host)
  if (Object.keys(memory).length > 0) result.memory = memory
  // kubelet names every size of the node, mostly with limit 0; without the controller `create` would fail.
  const pages = resources.hugepageLimits.filter(({ pageSize }) => host.hugepageSizes.includes(pageSize))
  if (pages.length > 0) result.hugepageLimits = pages.map(({ pageSize, limit }) => ({ pageSize, limit }))
  if (Object.keys(resources.unified).length > 0) result.unified = { ...resources.unified }
  return result
}

/** What is in force after an update: 0 and empty mean "unchanged" (CRI UpdateContainerResources). */
export function mergeResources(before: LinuxResources | undefined, update: LinuxResources): LinuxResources {
  if (before === undefined) return update
  const pages = new Map(before.hugepageLimits.map(page => [page.pageSize, page]))
  for (const page of update.hugepageLimits) pages.set(page.pageSize, page)
  return {
    cpuPeriod: update.cpuPeriod || before.cpuPeriod,
    cpuQuota: update.cpuQuota || before.cpuQuota,
    cpuShares: update.cpuShares || before.cpuShares,
    memoryLimit: update.memoryLimit || before.memoryLimit,
    memorySwapLimit: update.memorySwapLimit || before.memorySwapLimit,
    oomScoreAdj: update.oomScoreAdj || before.oomScoreAdj,
    cpusetCpus: update.cpusetCpus || before.cpusetCpus,
    cpusetMems: update.cpusetMems || before.cpusetMems,
    hugepageLimits: [...pages.values()],
    unified: { ...before.unified, ...update.unified },
  }
}

function cpuOf(resources: LinuxResources): NonNullable<OciResources['cpu']> {
  return {
    ...(resources.cpuShares === 0 ? {} : { shares: resources.cpuShares }),
    ...(resources.cpuQuota === 0 ? {} : { quota: resources.cpuQuota }),
    ...(resources.cpuPeriod === 0 ? {} : { period: resources.cpuPeriod }),
    ...(resources.cpusetCpus === '' ? {} : { cpus: resources.cpusetCpus }),
    ...(resources.cpusetMems === '' ? {} : { mems: resources.cpusetMems }),
  }
}

/** OCI's `swap` is memory and swap together, as is CRI's. With a limit and no word about swap there is none. */
function memoryOf(resources: LinuxResources, host: CgroupFacts): NonNullable<OciResources['memory']> {
  const limit = asLimit(resources.memoryLimit)
  const swap = resources.memorySwapLimit === 0 ? limit : asLimit(resources.memorySwapLimit)
  return {
    ...(limit === 0 ? {} : { limit }),
    ...(swap === 0 || !host.swapAccounting ? {} : { swap }),
  }
}

/** Clients write "no limit" as a number near 2⁶³; the runtime takes -1. */
function asLimit(bytes: number): number {
  return bytes >= Number.MAX_SAFE_INTEGER ? -1 : bytes
}

/**
 * @param field where the request has them
 * @throws BerthError invalid, naming the field, for values the kernel would refuse
 */
export function checkResources(field: string, resources: LinuxResources, host: CgroupFacts): void {
  const check = (ok: boolean, name: string, expected: string, value: unknown) => {
    if (!ok) throw invalid(`${field}.${name}`, `expected ${expected}, got ${JSON.stringify(value)}`)
  }
  const { cpuShares, cpuQuota, cpuPeriod, memoryLimit, memorySwapLimit, hugepageLimits, unified } = resources
  check(
    cpuShares === 0 || (isCount(cpuShares) && cpuShares >= MIN_SHARES && cpuShares <= MAX_SHARES),
    'cpu_shares',
    `${MIN_SHARES} to ${MAX_SHARES} or 0 for unset`,
    cpuShares,
  )
  check(
    cpuQuota === 0 || cpuQuota === -1 || (Number.isInteger(cpuQuota) && cpuQuota >= MIN_QUOTA),
    'cpu_quota',
    `at least ${MIN_QUOTA} microseconds, -1 for no limit or 0 for unset`,
    cpuQuota,
  )
  check(
    cpuPeriod === 0 || (Number.isInteger(cpuPeriod) && cpuPeriod >= MIN_PERIOD && cpuPeriod <= MAX_PERIOD),
    'cpu_period',
    `${MIN_PERIOD} to ${MAX_PERIOD} microseconds or 0 for unset`,
    cpuPeriod,
  )
  check(
    memoryLimit === -1 || isCount(memoryLimit),
    'memory_limit_in_bytes',
    'bytes, -1 for no limit',
    memoryLimit,
  )
  check(
    memorySwapLimit === -1 || isCount(memorySwapLimit),
    'memory_swap_limit_in_bytes',
    'bytes, -1 for no limit',
    memorySwapLimit,
  )
  check(
    memorySwapLimit <= 0 || memorySwapLimit === Number.MAX_SAFE_INTEGER || memoryLimit > 0,
    'memory_swap_limit_in_bytes',
    'none without memory_limit_in_bytes: it counts memory and swap together',
    memorySwapLimit,
  )
  check(
    memorySwapLimit <= 0 || memorySwapLimit >= asLimit(memoryLimit),
    'memory_swap_limit_in_bytes',
    `at least the memory limit ${memoryLimit}: it counts memory and swap together`,
    memorySwapLimit,
  )
  for (const name of ['cpusetCpus', 'cpusetMems'] as const) {
    const member = name === 'cpusetCpus' ? 'cpuset_cpus' : 'cpuset_mems'
    check(
      /^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$/.test(resources[name]),
      member,
      'a list like "0-3,7"',
      resources[name],
    )
  }
  check(
    hugepageLimits.length <= MAX_ENTRIES,
    'hugepage_limits',
    `at most ${MAX_ENTRIES} entries`,
    hugepageLimits.length,
  )
  for (const { pageSize, limit } of hugepageLimits) {
    check(/^[0-9]+[KMG]B$/.test(pageSize), 'hugepage_limits.page_size', 'a size like "2MB"', pageSize)
    check(isCount(limit), 'hugepage_limits.limit', 'bytes', limit)
    check(
      limit === 0 || host.hugepageSizes.length === 0 || host.hugepageSizes.includes(pageSize),
      'hugepage_limits.page_size',
      `a size that this node has (${host.hugepageSizes.join(', ')})`,
      pageSize,
    )
  }
  checkUnified(`${field}.unified`, unified, host)
}

/** Keys become file names in the container's cgroup, values are written into them. */
function checkUnified(field: string, unified: Readonly<Record<string, string>>, host: CgroupFacts): void {
  const entries = Object.entries(unified)
  if (entries.length === 0) return
  if (host.cgroupVersion === 1) throw invalid(field, 'needs cgroup v2; this node has v1')
  if (entries.length > MAX_ENTRIES) throw invalid(field, `at most ${MAX_ENTRIES} entries`)
  for (const [key, value] of entries) {
    if (!/^[a-z0-9_]+(\.[A-Za-z0-9_]+)+$/.test(key) || key.startsWith('cgroup.')) {
      throw invalid(field, `expected the file name of a controller, got ${JSON.stringify(key)}`)
    }
    if (value.length > 4096 || /[\x00-\x09\x0b-\x1f\x7f]/.test(value)) {
      throw invalid(`${field}[${key}]`, 'expected at most 4096 printable characters')
    }
  }
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0
}
