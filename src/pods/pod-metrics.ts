import { setImmediate } from 'node:timers/promises'
import { type ContainerMetricsOptions, containerMetrics, readGroup } from '../containers/container-metrics.ts'
import { groupMetrics, type Sampler, samplerFor } from '../containers/group-metrics.ts'
import { type Counted, METRICS as M, metricDescriptors } from '../containers/metric-table.ts'
import type { Metric, MetricDescriptor, PodMetrics } from '../model/metrics.ts'
import type { Pod } from '../model/pod.ts'
import type { InterfaceCounters } from '../os/net-dev.ts'
import type { Catalog } from '../state/catalog.ts'
import type { PodNetworkReader } from './pod-network-usage.ts'
import { ownsCgroup } from './pod-stats.ts'

export type PodMetricsOptions = ContainerMetricsOptions & {
  readonly catalog: Pick<Catalog, 'pod' | 'containersOf'>
  readonly network: PodNetworkReader
  readonly counted: Counted
}

/** Metrics of ready pods and of those of their containers that run. */
export class PodMetricsReader {
  readonly #options: PodMetricsOptions

  constructor(options: PodMetricsOptions) {
    this.#options = options
  }

  /** Each of them has values, for pods or containers that use what it counts. */
  descriptors(): MetricDescriptor[] {
    return metricDescriptors(this.#options.counted)
  }

  /** Of those that are still there when their turn comes; other work gets done in between. */
  async *ofAll(pods: readonly Pod[]): AsyncGenerator<PodMetrics> {
    for (const { id } of pods) {
      const pod = this.#options.catalog.pod(id)
      if (pod?.phase === 'ready') yield await this.#of(pod)
      await setImmediate()
    }
  }

  async #of(pod: Pod): Promise<PodMetrics> {
    const { catalog } = this.#options
    const running = catalog.containersOf(pod.id).filter(({ phase }) => phase === 'running')
    const containers = []
    for (const container of running) {
      const metrics = await containerMetrics(this.#options, pod, container)
      containers.push({ containerId: container.id, metrics })
    }
    return { podId: pod.id, metrics: await this.#ofPod(pod), containers }
  }

  /** Of all its containers together, as far as they have a group of their own, and of its network. */
  async #ofPod(pod: Pod): Promise<Metric[]> {
    const { cgroups, network } = this.#options
    const { name, namespace } = pod.config.metadata
    const sample = samplerFor([pod.cgroup, pod.id, '', '', name, namespace])
    const group = ownsCgroup(pod) ? readGroup(cgroups, pod.cgroup) : undefined
    const counters = await network.countersOf(pod)
    return [
      ...(group === undefined ? [] : groupMetrics(sample, group)),
      ...(counters ?? []).filter(({ name }) => name !== 'lo').flatMap(one => networkMetrics(sample, one)),
    ]
  }
}

function networkMetrics(sample: Sampler, counters: InterfaceCounters): Metric[] {
  const { name } = counters
  return [
    ...sample(M.rxBytes, counters.rxBytes, name),
    ...sample(M.rxErrors, counters.rxErrors, name),
    ...sample(M.rxPackets, counters.rxPackets, name),
    ...sample(M.rxDropped, counters.rxDropped, name),
    ...sample(M.txBytes, counters.txBytes, name),
    ...sample(M.txErrors, counters.txErrors, name),
    ...sample(M.txPackets, counters.txPackets, name),
    ...sample(M.txDropped, counters.txDropped, name),
  ]
}
