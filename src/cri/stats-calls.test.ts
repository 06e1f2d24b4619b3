import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, sampleContainer, samplePod } from '../../test/support/cri.ts'
import { collect, serve } from '../../test/support/cri-server.ts'
import type { ContainerStats, PodStats } from '../model/usage.ts'

const pod = samplePod()
const container = sampleContainer()

const sample = { timestamp: 11n, usageNs: 2n ** 60n }
const psi = {
  full: { totalNs: 1n, avg10: 0.5, avg60: 1, avg300: 2 },
  some: { totalNs: 3n, avg10: 4, avg60: 5, avg300: 6 },
}
const stats: ContainerStats = {
  container,
  timestamp: 10n,
  cpu: { ...sample, psi },
  memory: {
    timestamp: 12n,
    workingSet: 1n,
    available: 2n,
    usage: 3n,
    rss: 4n,
    pageFaults: 5n,
    majorPageFaults: 0n,
  },
  swap: { timestamp: 13n, usage: 0n },
  io: { timestamp: 14n, psi },
  writable: { timestamp: 15n, mountpoint: '/var/lib/berth', usedBytes: 0n, inodesUsed: 7n },
}
const eth0 = { name: 'eth0', rxBytes: 1n, rxErrors: 0n, txBytes: 2n, txErrors: 0n }
const podStats: PodStats = {
  pod,
  timestamp: 10n,
  cpu: sample,
  network: { timestamp: 16n, defaultInterface: eth0, interfaces: [{ ...eth0, name: 'eth1' }] },
  processCount: 2n,
  containers: [stats],
}

test('usage: what was measured has its own time, what was not is absent', async context => {
  const services = fakeServices({
    pods: { stats: async () => podStats, listStats: async () => [podStats] },
    containers: { stats: async () => stats, listStats: async () => [stats] },
  })
  const { client } = await serve(context, { services })
  const wirePsi = {
    Full: { Total: '1', Avg10: 0.5, Avg60: 1, Avg300: 2 },
    Some: { Total: '3', Avg10: 4, Avg60: 5, Avg300: 6 },
  }
  const { stats: one } = await client.runtime('ContainerStats', { container_id: 'a' })
  const { attributes, ...usage } = one!
  assert.deepEqual([attributes?.id, attributes?.metadata?.name], [container.id, 'main'])
  assert.deepEqual(usage, {
    cpu: {
      timestamp: '11',
      usage_core_nano_seconds: { value: '1152921504606846976' },
      usage_nano_cores: null,
      psi: wirePsi,
    },
    memory: {
      timestamp: '12',
      working_set_bytes: { value: '1' },
      available_bytes: { value: '2' },
      usage_bytes: { value: '3' },
      rss_bytes: { value: '4' },
      page_faults: { value: '5' },
      major_page_faults: { value: '0' },
      psi: null,
    },
    swap: { timestamp: '13', swap_available_bytes: null, swap_usage_bytes: { value: '0' } },
    io: { timestamp: '14', psi: wirePsi },
    writable_layer: {
      timestamp: '15',
      fs_id: { mountpoint: '/var/lib/berth' },
      used_bytes: { value: '0' },
      inodes_used: { value: '7' },
    },
  })
  assert.deepEqual((await client.runtime('ListContainerStats', {})).stats, [one])
  const { stats: whole } = await client.runtime('PodSandboxStats', { pod_sandbox_id: 'a' })
  const { containers, network, process, memory, io } = whole!.linux!
  assert.deepEqual([containers, memory, io], [[one], null, null])
  assert.deepEqual(process, { timestamp: '10', process_count: { value: '2' } })
  const traffic = {
    rx_bytes: { value: '1' },
    rx_errors: { value: '0' },
    tx_bytes: { value: '2' },
    tx_errors: { value: '0' },
  }
  assert.deepEqual(network, {
    timestamp: '16',
    default_interface: { name: 'eth0', ...traffic },
    interfaces: [{ name: 'eth1', ...traffic }],
  })
  assert.deepEqual((await client.runtime('ListPodSandboxStats', {})).stats, [whole])
  const streamed = await collect(client.runtimeStream('StreamPodSandboxStats', {}))
  assert.deepEqual(streamed, [{ pod_sandbox_stats: [whole] }])
  const perContainer = await collect(client.runtimeStream('StreamContainerStats', {}))
  assert.deepEqual(perContainer, [{ container_stats: [one] }])
})

test('an empty list stream ends at once', async context => {
  const { client } = await serve(context)
  assert.deepEqual(await collect(client.runtimeStream('StreamPodSandboxes', {})), [])
  assert.deepEqual(await collect(client.runtimeStream('StreamContainerStats', {})), [])
})

test('metrics: values beyond 2⁵³, labels in their order, a stream of one pod a message', async context => {
  const descriptor = {
    name: 'container_x',
    help: 'what it is',
    kind: 'gauge',
    labels: ['id', 'device'],
  } as const
  const metric = { descriptor, labels: ['/a', 'sda'], value: 2n ** 60n }
  const containers = [{ containerId: 'c', metrics: [{ ...metric, value: 0n }] }]
  const services = fakeServices({
    pods: {
      metricDescriptors: () => [descriptor],
      async *metrics() {
        yield { podId: 'p1', metrics: [metric], containers }
        yield { podId: 'p2', metrics: [], containers: [] }
      },
    },
  })
  const { client } = await serve(context, { services })
  assert.deepEqual((await client.runtime('ListMetricDescriptors', {})).descriptors, [
    { name: 'container_x', help: 'what it is', label_keys: ['id', 'device'] },
  ])
  const wire = {
    ...{ name: 'container_x', timestamp: '0', metric_type: 'GAUGE' },
    ...{ label_values: ['/a', 'sda'], value: { value: '1152921504606846976' } },
  }
  const { pod_metrics } = await client.runtime('ListPodSandboxMetrics', {})
  assert.deepEqual(pod_metrics, [
    {
      pod_sandbox_id: 'p1',
      metrics: [wire],
      container_metrics: [{ container_id: 'c', metrics: [{ ...wire, value: { value: '0' } }] }],
    },
    { pod_sandbox_id: 'p2', metrics: [], container_metrics: [] },
  ])
  const messages = await collect(client.runtimeStream('StreamPodSandboxMetrics', {}))
  assert.deepEqual(
    messages.map(({ pod_sandbox_metrics }) => pod_sandbox_metrics),
    pod_metrics.map(pod => [pod]),
  )
})
