import { posix } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { nowNs } from '../base/clock.ts'
import { CgroupMeter, type CgroupUsage } from '../containers/cgroup-meter.ts'
import type { ContainerReading, ContainerStatsReader } from '../containers/stats.ts'
import type { Pod } from '../model/pod.ts'
import type { CpuUsage, MemoryUsage, PodStats } from '../model/usage.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import type { Catalog } from '../state/catalog.ts'
import { networkUsage, type PodNetworkReader } from './pod-network-usage.ts'

export type PodStatsOptions = {
  readonly catalog: Pick<Catalog, 'pod' | 'containersOf'>
  readonly cgroups: Pick<Cgroups, 'stats'>
  readonly containers: Pick<ContainerStatsReader, 'read'>
  readonly network: Pick<PodNetworkReader, 'countersOf'>
}

/** What pods use: their control group where it is theirs alone, else their containers together. */
export class PodStatsReader {
  readonly #options: PodStatsOptions
  readonly #meter: CgroupMeter

  constructor(options: PodStatsOptions) {
    this.#options = options
    this.#meter = new CgroupMeter(options.cgroups)
  }

  /** Of a pod in the catalog; with those of its containers that run. */
  async of(pod: Pod): Promise<PodStats> {
    const { catalog, containers } = this.#options
    const running = catalog.containersOf(pod.id).filter(({ phase }) => phase === 'running')
    const readings = running.map(container => containers.read(container))
    const { processes, ...usage } = this.#usageOf(pod, readings)
    const counters = await this.#options.network.countersOf(pod)
    const network = counters && networkUsage(counters, pod.network.attachment?.ifName)
    const stats = readings.map(reading => reading.stats)
    return { pod, ...usage, network, processCount: processes, containers: stats }
  }

  /** Of those that are still there when their turn comes; other work gets done in between. */
  async ofAll(pods: readonly Pod[]): Promise<PodStats[]> {
    const all: PodStats[] = []
    for (const { id } of pods) {
      const pod = this.#options.catalog.pod(id)
      if (pod === undefined) continue
      all.push(await this.of(pod))
      await setImmediate()
    }
    return all
  }

  /** For a pod that leaves the catalog. */
  forget(id: string): void {
    this.#meter.forget(id)
  }

  #usageOf(pod: Pod, readings: readonly ContainerReading[]): Omit<CgroupUsage, 'swap'> {
    const own = ownsCgroup(pod) ? this.#meter.read(pod.id, pod.cgroup) : undefined
    if (own === undefined) return sumOf(readings)
    const { timestamp, cpu, memory, io, processes } = own
    return { timestamp, cpu, memory, io, processes }
  }
}

/**
 * Nothing but this pod runs in its control group: Berth made it, or its client named it after the pod, as kubelet
 * does: `/kubepods/burstable/pod<uid>`, `kubepods-burstable-pod<uid, with _ for ->.slice`.
 */
export function ownsCgroup({ cgroup, config }: Pick<Pod, 'cgroup' | 'config'>): boolean {
  if (config.cgroupParent === '') return true
  const { uid } = config.metadata
  const name = posix.basename(cgroup, '.slice')
  return uid !== '' && [uid, uid.replaceAll('-', '_')].some(form => name.endsWith(`pod${form}`))
}

/** Limits and pressure are not the sum of anything. */
function sumOf(readings: readonly ContainerReading[]): Omit<CgroupUsage, 'swap'> {
  const cpus = readings.flatMap(({ stats }) => stats.cpu ?? [])
  const memories = readings.flatMap(({ stats }) => stats.memory ?? [])
  return {
    timestamp: nowNs(),
    cpu: sumOfCpu(cpus),
    memory: sumOfMemory(memories),
    processes: readings.reduce((sum, { processes }) => sum + processes, 0n),
  }
}

function sumOfCpu(cpus: readonly CpuUsage[]): CpuUsage | undefined {
  const [first, ...rest] = cpus
  if (first === undefined) return undefined
  return rest.reduce(
    (sum, cpu) => ({
      timestamp: cpu.timestamp,
      usageNs: sum.usageNs + cpu.usageNs,
      nanoCores:
        sum.nanoCores === undefined || cpu.nanoCores === undefined
          ? undefined
          : sum.nanoCores + cpu.nanoCores,
    }),
    { ...first, psi: undefined },
  )
}

function sumOfMemory(memories: readonly MemoryUsage[]): MemoryUsage | undefined {
  const [first, ...rest] = memories
  if (first === undefined) return undefined
  return rest.reduce(
    (sum, memory) => ({
      timestamp: memory.timestamp,
      workingSet: sum.workingSet + memory.workingSet,
      usage: sum.usage + memory.usage,
      rss: sum.rss + memory.rss,
      pageFaults: sum.pageFaults + memory.pageFaults,
      majorPageFaults: sum.majorPageFaults + memory.majorPageFaults,
    }),
    { ...first, available: undefined, psi: undefined },
  )
}
