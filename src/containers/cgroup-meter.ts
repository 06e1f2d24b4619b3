import type { CpuUsage, IoUsage, MemoryUsage, Psi, SwapUsage } from '../model/usage.ts'
import type { CgroupStats, Cgroups, Pressure } from '../os/cgroup/cgroup.ts'

/** What one control group uses. A figure that the kernel does not give is absent. */
export type CgroupUsage = {
  /** Wall clock, ns. */
  readonly timestamp: bigint
  readonly cpu?: CpuUsage | undefined
  readonly memory?: MemoryUsage | undefined
  readonly swap?: SwapUsage | undefined
  readonly io?: IoUsage | undefined
  /** Threads count, too. */
  readonly processes: bigint
}

/** `at`: monotonic, ns. `nanoCores`: the rate from the sample before to this one. */
type CpuSample = { readonly at: bigint; readonly usageNs: bigint; readonly nanoCores: bigint | undefined }

// Over less, the ticks of the scheduler's accounting show more than the load does.
const MIN_RATE_WINDOW_NS = 1_000_000_000n

/** Reads control groups, and keeps a sample of each to tell how fast it uses the processors. */
export class CgroupMeter {
  readonly #cgroups: Pick<Cgroups, 'stats'>
  readonly #monotonicNs: () => bigint
  /** By what the caller calls the group: its owner's id. */
  readonly #samples = new Map<string, CpuSample>()

  constructor(cgroups: Pick<Cgroups, 'stats'>, monotonicNs: () => bigint = process.hrtime.bigint) {
    this.#cgroups = cgroups
    this.#monotonicNs = monotonicNs
  }

  /** undefined if there is no such group. 8 to 20 small files, read synchronously: about 0.15 ms. */
  read(id: string, cgroup: string): CgroupUsage | undefined {
    const stats = this.#cgroups.stats(cgroup)
    if (stats === undefined) return undefined
    const { timestamp, pressure, pids } = stats
    return {
      timestamp,
      cpu: this.#cpuOf(id, stats),
      memory: memoryOf(stats),
      swap: swapOf(stats),
      io: pressure && { timestamp, psi: psiOf(pressure.io) },
      processes: pids.current,
    }
  }

  forget(id: string): void {
    this.#samples.delete(id)
  }

  #cpuOf(id: string, { timestamp, cpu, pressure }: CgroupStats): CpuUsage | undefined {
    // No group in use has used nothing: its files were gone already, or the kernel does not count.
    if (cpu.usageNs === 0n) return undefined
    return {
      timestamp,
      usageNs: cpu.usageNs,
      nanoCores: this.#nanoCores(id, cpu.usageNs),
      psi: pressure && psiOf(pressure.cpu),
    }
  }

  /** By the monotonic clock: the other one may be set. */
  #nanoCores(id: string, usageNs: bigint): bigint | undefined {
    const at = this.#monotonicNs()
    const last = this.#samples.get(id)
    if (last !== undefined && at - last.at < MIN_RATE_WINDOW_NS) return last.nanoCores
    const nanoCores =
      last === undefined || usageNs < last.usageNs
        ? undefined
        : ((usageNs - last.usageNs) * 1_000_000_000n) / (at - last.at)
    this.#samples.set(id, { at, usageNs, nanoCores })
    return nanoCores
  }
}

function memoryOf({ timestamp, memory, pressure }: CgroupStats): MemoryUsage | undefined {
  if (memory.usage === 0n) return undefined // as for the processors
  const { limit, workingSet, usage, rss, pageFaults, majorPageFaults } = memory
  return {
    timestamp,
    workingSet,
    available: limit === 0n ? undefined : atLeast0(limit - workingSet),
    usage,
    rss,
    pageFaults,
    majorPageFaults,
    psi: pressure && psiOf(pressure.memory),
  }
}

function swapOf({ timestamp, memory: { swap, swapLimit = 0n } }: CgroupStats): SwapUsage | undefined {
  if (swap === undefined) return undefined
  return { timestamp, available: swapLimit === 0n ? undefined : atLeast0(swapLimit - swap), usage: swap }
}

function psiOf({ full, some }: Pressure): Psi {
  const line = ({ total, ...averages }: Pressure['full']) => ({ totalNs: total, ...averages })
  return { full: line(full), some: line(some) }
}

/** A limit may be below what is used, for a moment after it was lowered. */
function atLeast0(value: bigint): bigint {
  return value > 0n ? value : 0n
}
