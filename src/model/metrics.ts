/** Counters and gauges of pods and containers, as the interface's metrics calls show them. */

export type MetricDescriptor = {
  readonly name: string
  readonly help: string
  readonly kind: 'counter' | 'gauge'
  /** Names of the labels, `OBJECT_LABELS` first. */
  readonly labels: readonly string[]
}

/** What every metric says of whose it is; their names are those that cAdvisor's metrics have. */
export const OBJECT_LABELS = ['id', 'name', 'image', 'container', 'pod', 'namespace'] as const

export type Metric = {
  readonly descriptor: MetricDescriptor
  /** In the order of the descriptor's labels. */
  readonly labels: readonly string[]
  readonly value: bigint
}

export type PodMetrics = {
  readonly podId: string
  readonly metrics: readonly Metric[]
  readonly containers: ReadonlyArray<{ readonly containerId: string; readonly metrics: readonly Metric[] }>
}
