import { batches } from './batches.ts'
import type { Calls } from './call.ts'
import { toContainerStatsFilter, toPodStatsFilter } from './convert/filters.ts'
import { fromMetricDescriptor, fromPodMetrics } from './convert/metrics.ts'
import { fromContainerStats, fromPodStats } from './convert/stats.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import type { Containers, Pods } from './services.ts'

type StatsCalls = Pick<
  RuntimeServiceHandlers,
  | 'ContainerStats'
  | 'ListContainerStats'
  | 'StreamContainerStats'
  | 'PodSandboxStats'
  | 'ListPodSandboxStats'
  | 'StreamPodSandboxStats'
  | 'ListMetricDescriptors'
  | 'ListPodSandboxMetrics'
  | 'StreamPodSandboxMetrics'
>

export function statsCalls(calls: Calls, pods: Pods, containers: Containers): StatsCalls {
  return {
    ContainerStats: calls.read(async ({ container_id }) => ({
      stats: fromContainerStats(await containers.stats(container_id)),
    })),

    ListContainerStats: calls.read(async ({ filter }) => ({
      stats: (await containers.listStats(toContainerStatsFilter(filter))).map(fromContainerStats),
    })),

    StreamContainerStats: calls.stream('read', async function* ({ filter }) {
      const stats = await containers.listStats(toContainerStatsFilter(filter))
      for (const batch of batches(stats.map(fromContainerStats))) yield { container_stats: batch }
    }),

    PodSandboxStats: calls.read(async ({ pod_sandbox_id }) => ({
      stats: fromPodStats(await pods.stats(pod_sandbox_id)),
    })),

    ListPodSandboxStats: calls.read(async ({ filter }) => ({
      stats: (await pods.listStats(toPodStatsFilter(filter))).map(fromPodStats),
    })),

    StreamPodSandboxStats: calls.stream('read', async function* ({ filter }) {
      const stats = await pods.listStats(toPodStatsFilter(filter))
      for (const batch of batches(stats.map(fromPodStats))) yield { pod_sandbox_stats: batch }
    }),

    ListMetricDescriptors: calls.read(() => ({
      descriptors: pods.metricDescriptors().map(fromMetricDescriptor),
    })),

    ListPodSandboxMetrics: calls.read(async () => {
      const pod_metrics = []
      for await (const metrics of pods.metrics()) pod_metrics.push(fromPodMetrics(metrics))
      return { pod_metrics }
    }),

    // A pod at a time: the rest is not read for a client that leaves.
    StreamPodSandboxMetrics: calls.stream('read', async function* () {
      for await (const metrics of pods.metrics()) yield { pod_sandbox_metrics: [fromPodMetrics(metrics)] }
    }),
  }
}
