import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import type { Metric__Output } from '../../src/cri/generated/runtime/v1/Metric.ts'
import type { PodSandboxMetrics__Output } from '../../src/cri/generated/runtime/v1/PodSandboxMetrics.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

/** What Kubernetes' suite wants to be described, each with the prefix `container_`. */
const WANTED = `
blkio_device_usage_total
cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total
cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total
file_descriptors
fs_inodes_free fs_inodes_total fs_limit_bytes fs_usage_bytes
fs_reads_total fs_reads_bytes_total fs_writes_total fs_writes_bytes_total
last_seen
memory_cache memory_failcnt memory_failures_total memory_kernel_usage memory_mapped_file memory_max_usage_bytes
memory_rss memory_swap memory_usage_bytes memory_working_set_bytes
network_receive_bytes_total network_receive_errors_total network_receive_packets_total
network_receive_packets_dropped_total network_transmit_bytes_total network_transmit_errors_total
network_transmit_packets_total network_transmit_packets_dropped_total
oom_events_total processes sockets
spec_cpu_period spec_cpu_shares spec_memory_limit_bytes spec_memory_reservation_limit_bytes
spec_memory_swap_limit_bytes
start_time_seconds threads threads_max
`
  .trim()
  .split(/\s+/)

/** Those that only some groups have: without input or output, or without a limit of the processors. */
const MAY_LACK_VALUES =
  /^container_(blkio_device_usage_total|fs_(reads|writes)(_bytes)?_total|spec_cpu_quota)$/

async function metricsOf(podId: string): Promise<PodSandboxMetrics__Output> {
  const { pod_metrics } = await kubelet().daemon.client.runtime('ListPodSandboxMetrics', {})
  const found = pod_metrics.find(({ pod_sandbox_id }) => pod_sandbox_id === podId)
  assert.ok(found, 'the pod has metrics')
  return found
}

function figureOf(metrics: readonly Metric__Output[], name: string, ...labels: string[]): bigint {
  const found = metrics.find(
    metric =>
      metric.name === `container_${name}` && labels.every(label => metric.label_values.includes(label)),
  )
  assert.ok(found, `there is a container_${name} ${labels.join(' ')}`)
  return BigInt(found.value?.value ?? -1)
}

test('every metric is described, and what is described has values with as many labels', async () => {
  const { client } = kubelet().daemon
  const { descriptors } = await client.runtime('ListMetricDescriptors', {})
  const described = new Map(descriptors.map(one => [one.name, one]))
  assert.equal(described.size, descriptors.length, 'no name twice')
  for (const name of WANTED) assert.ok(described.has(`container_${name}`), name)
  const pressure = ['io.pressure', 'unified/io.pressure'].some(name => existsSync(`/sys/fs/cgroup/${name}`))
  assert.equal(described.has('container_pressure_io_stalled_seconds_total'), pressure)
  if (!existsSync('/sys/fs/cgroup/cgroup.controllers')) {
    const hugetlb = existsSync('/sys/fs/cgroup/hugetlb/cgroup.procs')
    assert.equal(described.has('container_hugetlb_usage_bytes'), hugetlb)
    assert.equal(described.has('container_hugetlb_max_usage_bytes'), hugetlb)
  }
  for (const { name, help } of descriptors) assert.notEqual(help, '', name)

  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const { metrics, container_metrics } = await metricsOf(pod.id)
  assert.deepEqual(
    container_metrics.map(({ container_id }) => container_id),
    [id],
  )
  const all = [...metrics, ...(container_metrics[0]?.metrics ?? [])]
  const valued = new Set(all.map(({ name }) => name))
  for (const { name } of descriptors) assert.ok(valued.has(name) || MAY_LACK_VALUES.test(name), name)
  for (const metric of all) {
    const { name, label_values, timestamp, value } = metric
    assert.equal(label_values.length, described.get(name)?.label_keys.length, name)
    assert.deepEqual([timestamp, value === null], ['0', false], name)
  }
})

test('the figures are those of the container', async () => {
  const pod = await kubelet().runPod()
  const resources = {
    memory_limit_in_bytes: 96 << 20,
    cpu_shares: 512,
    cpu_period: 50_000,
    cpu_quota: 25_000,
  }
  const script = `dd if=/dev/zero of=/file bs=1M count=3; sleep 100001 & sleep 100002 & while :; do :; done`
  const id = await kubelet().run(pod, script, { linux: { resources } })
  const own = async () => (await metricsOf(pod.id)).container_metrics[0]?.metrics ?? []
  await until('three processes sleep', async () => figureOf(await own(), 'processes') >= 3n)
  await until(
    'time of the processor was used',
    async () => figureOf(await own(), 'cpu_usage_seconds_total') >= 1n,
  )
  await until('the file is counted', async () => figureOf(await own(), 'fs_usage_bytes') >= 3n << 20n)
  const metrics = await own()
  const value = (name: string, ...labels: string[]) => figureOf(metrics, name, ...labels)
  assert.equal(value('spec_memory_limit_bytes'), 96n << 20n)
  assert.equal(value('spec_cpu_shares'), 512n)
  assert.equal(value('spec_cpu_period'), 50_000n)
  assert.equal(value('spec_cpu_quota'), 25_000n)
  assert.ok(value('memory_usage_bytes') >= value('memory_working_set_bytes'))
  assert.ok(value('memory_max_usage_bytes') >= value('memory_usage_bytes'))
  assert.ok(value('memory_failures_total', 'pgfault') > 0n)
  assert.ok(value('threads') >= value('processes'))
  assert.ok(value('file_descriptors') >= 3n)
  assert.equal(value('sockets'), 0n)
  assert.ok(value('ulimits_soft', 'max_open_files') > 0n)
  assert.ok(value('fs_limit_bytes') > value('fs_usage_bytes'))
  assert.equal(value('oom_events_total'), 0n)
  assert.equal(value('start_time_seconds'), BigInt((await kubelet().status(id)).started_at) / 1_000_000_000n)
  const [usage] = metrics.filter(({ name }) => name === 'container_cpu_usage_seconds_total')
  const name = pod.config.metadata?.name ?? ''
  assert.deepEqual(usage?.label_values.slice(1), [
    id,
    'docker.io/library/busybox:latest',
    (await kubelet().status(id)).metadata?.name,
    name,
    'default',
    'total',
  ])
  assert.match(usage?.label_values[0] ?? '', new RegExp(`/berth-${id}$`))
})

test('a pod has the figures of its network and of its group, one in the node’s network those of its group', async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  const bridge = `${kubelet().daemon.subnet}.1`
  await kubelet().outputOf(pod, `ping -c 3 -i 0.2 ${bridge} > /dev/null`)
  const { metrics } = await metricsOf(pod.id)
  assert.ok(figureOf(metrics, 'network_receive_packets_total', 'eth0') >= 3n)
  assert.ok(figureOf(metrics, 'network_transmit_bytes_total', 'eth0') >= 3n * 84n)
  assert.ok(figureOf(metrics, 'memory_usage_bytes', pod.id) > 0n)
  assert.deepEqual(
    metrics.filter(({ label_values }) => label_values.includes('lo')),
    [],
  )
  const host = await kubelet().runPodWith({ network: 'NODE' })
  await kubelet().run(host, FOREVER)
  const names = (await metricsOf(host.id)).metrics.map(({ name }) => name)
  assert.deepEqual(
    names.filter(name => name.startsWith('container_network_')),
    [],
  )
})

test('a stream has the same pods, one after the other; stopped ones have no metrics', async () => {
  const { client } = kubelet().daemon
  const pods = [await kubelet().runPod(), await kubelet().runPod(), await kubelet().runPod()]
  await kubelet().stopPod(pods[1]!.id)
  const streamed: string[] = []
  for await (const { pod_sandbox_metrics } of client.runtimeStream('StreamPodSandboxMetrics', {})) {
    streamed.push(...pod_sandbox_metrics.map(({ pod_sandbox_id }) => pod_sandbox_id))
  }
  assert.deepEqual(streamed, [pods[0]!.id, pods[2]!.id])
})

test('out of memory is counted', async () => {
  const pod = await kubelet().runPod()
  const resources = { memory_limit_in_bytes: 15 << 20, memory_swap_limit_in_bytes: 15 << 20 }
  // The shell lives on: the kernel kills what it started.
  const id = await kubelet().run(pod, `dd if=/dev/zero of=/dev/null bs=20M; echo killed; ${FOREVER}`, {
    linux: { resources },
  })
  await kubelet().prints(id, 'killed')
  const metrics = (await metricsOf(pod.id)).container_metrics[0]?.metrics ?? []
  assert.equal(figureOf(metrics, 'oom_events_total'), 1n)
})
