import type { Metric, MetricDescriptor, PodMetrics } from '../../model/metrics.ts'
import type { Metric as WireMetric } from '../generated/runtime/v1/Metric.ts'
import type { MetricDescriptor as WireDescriptor } from '../generated/runtime/v1/MetricDescriptor.ts'
import type { PodSandboxMetrics } from '../generated/runtime/v1/PodSandboxMetrics.ts'

export function fromMetricDescriptor({ name, help, labels }: MetricDescriptor): WireDescriptor {
  return { name, help, label_keys: [...labels] }
}

export function fromPodMetrics({ podId, metrics, containers }: PodMetrics): PodSandboxMetrics {
  return {
    pod_sandbox_id: podId,
    metrics: metrics.map(fromMetric),
    container_metrics: containers.map(({ containerId, metrics: own }) => ({
      container_id: containerId,
      metrics: own.map(fromMetric),
    })),
  }
}

/** Timestamp 0: taken for this call. */
function fromMetric({ descriptor, labels, value }: Metric): WireMetric {
  return {
    name: descriptor.name,
    timestamp: '0',
    metric_type: descriptor.kind === 'counter' ? 'COUNTER' : 'GAUGE',
    label_values: [...labels],
    value: { value: String(value) },
  }
}
