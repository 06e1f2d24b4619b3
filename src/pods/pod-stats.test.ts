import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NodePaths } from '../config/paths.ts'
import type { ContainerReading } from '../containers/stats.ts'
import type { Container } from '../model/container.ts'
import type { NamespaceMode, Pod } from '../model/pod.ts'
import type { ContainerStats } from '../model/usage.ts'
import type { Log } from '../observe/log.ts'
import type { CgroupStats } from '../os/cgroup/cgroup.ts'
import { PodNetworkReader } from './pod-network-usage.ts'
import { ownsCgroup, PodStatsReader } from './pod-stats.ts'

const UID = '6e9b6a52-0d3c-4b0a'

type PodShape = { cgroupParent?: string; cgroup?: string; uid?: string; network?: NamespaceMode }

function podOf({ cgroupParent = '', cgroup = cgroupParent, uid = UID, network = 'pod' }: PodShape): Pod {
  const config = { metadata: { uid }, cgroupParent, namespaces: { network } }
  return { id: 'p', phase: 'ready', cgroup, config, network: { ips: [] } } as unknown as Pod
}

for (const { shape, owns } of [
  { shape: { cgroup: '/berth/pod-p' }, owns: true },
  { shape: { cgroupParent: `/kubepods/burstable/pod${UID}` }, owns: true },
  {
    shape: {
      cgroupParent: 'kubepods-podu.slice',
      cgroup: '/kubepods.slice/kubepods-pod6e9b6a52_0d3c_4b0a.slice',
    },
    owns: true,
  },
  { shape: { cgroupParent: '/kubepods/burstable' }, owns: false },
  { shape: { cgroupParent: `/pod${UID}/shared` }, owns: false },
  { shape: { cgroupParent: '/some/pod', uid: '' }, owns: false },
  { shape: { cgroupParent: '/user-1000', uid: '1000' }, owns: false },
]) {
  test(`a pod ${owns ? 'has its' : 'has not its own'} control group: ${JSON.stringify(shape)}`, () => {
    assert.equal(ownsCgroup(podOf(shape)), owns)
  })
}

function reading(id: string, n: bigint, nanoCores: bigint | undefined): ContainerReading {
  const psi = { some: {}, full: {} }
  const stats = {
    container: { id },
    timestamp: n,
    cpu: { timestamp: n, usageNs: n, nanoCores, psi },
    memory: {
      timestamp: n,
      workingSet: n * 2n,
      available: 5n,
      usage: n * 3n,
      rss: n * 4n,
      pageFaults: n * 5n,
      majorPageFaults: n * 6n,
      psi,
    },
  }
  return { stats: stats as unknown as ContainerStats, processes: n }
}

const GROUP = {
  timestamp: 5n,
  cpu: { usageNs: 70n },
  memory: { usage: 100n, limit: 0n },
  pids: { current: 12n },
} as CgroupStats

type World = {
  readings: Readonly<Record<string, ContainerReading>>
  exited?: string
  group?: CgroupStats
  counters?: () => Promise<Array<{ name: string }>>
}

function setUp(pod: Pod, { readings, exited, group, counters }: World) {
  const pods = new Map([[pod.id, pod]])
  const asked: string[] = []
  const containers = Object.keys(readings).map(id => ({ id, phase: id === exited ? 'exited' : 'running' }))
  const catalog = { pod: (id: string) => pods.get(id), containersOf: () => containers as Container[] }
  const network = new PodNetworkReader({
    catalog,
    namespaces: {
      interfaceCounters: async netns => {
        asked.push(netns)
        return (await (counters?.() ?? [])).map(({ name }) => ({
          name,
          rxBytes: 1n,
          rxPackets: 1n,
          rxErrors: 0n,
          rxDropped: 0n,
          txBytes: 2n,
          txPackets: 2n,
          txErrors: 0n,
          txDropped: 0n,
        }))
      },
    },
    paths: new NodePaths('/nonexistent/root', '/nonexistent/run'),
    log: { debug: () => undefined } as Partial<Log> as Log,
  })
  const reader = new PodStatsReader({
    catalog,
    cgroups: { stats: path => (path === pod.cgroup ? group : undefined) },
    containers: { read: ({ id }) => readings[id]! },
    network,
  })
  return { pods, asked, reader }
}

test('a pod with a group of its own has the figures of the group, its containers theirs', async () => {
  const pod = podOf({ cgroup: '/berth/pod-p' })
  const { reader } = setUp(pod, {
    readings: { a: reading('a', 1n, 1n), b: reading('b', 2n, 2n) },
    exited: 'b',
    group: GROUP,
  })
  const stats = await reader.of(pod)
  assert.equal(stats.cpu?.usageNs, 70n)
  assert.equal(stats.memory?.usage, 100n)
  assert.equal(stats.processCount, 12n)
  assert.deepEqual(
    stats.containers.map(({ container }) => container.id),
    ['a'],
  )
})

test('a pod in a group with others is the sum of its containers, without limits and pressure', async () => {
  const pod = podOf({ cgroupParent: '/shared' })
  const { reader } = setUp(pod, {
    readings: { a: reading('a', 1n, 10n), b: reading('b', 2n, 20n) },
    group: GROUP,
  })
  const { cpu, memory, processCount, io } = await reader.of(pod)
  assert.deepEqual(cpu, { timestamp: 2n, usageNs: 3n, nanoCores: 30n })
  assert.deepEqual(memory, {
    timestamp: 2n,
    workingSet: 6n,
    usage: 9n,
    rss: 12n,
    pageFaults: 15n,
    majorPageFaults: 18n,
  })
  assert.equal(processCount, 3n)
  assert.equal(io, undefined)
})

test('a sum has no rate while one of its parts has none', async () => {
  const pod = podOf({ cgroupParent: '/shared' })
  const readings = { a: reading('a', 1n, 10n), b: reading('b', 2n, undefined) }
  const { cpu } = await setUp(pod, { readings }).reader.of(pod)
  assert.equal(cpu?.usageNs, 3n)
  assert.equal(cpu?.nanoCores, undefined)
})

test('a pod without containers in a group with others has used nothing that could be measured', async () => {
  const pod = podOf({ cgroupParent: '/shared' })
  const stats = await setUp(pod, { readings: {}, group: GROUP }).reader.of(pod)
  assert.equal(stats.cpu, undefined)
  assert.equal(stats.memory, undefined)
  assert.equal(stats.processCount, 0n)
  assert.ok(stats.timestamp > 0n)
})

test('the network of a pod without processes is read in its namespace', async () => {
  const pod = podOf({})
  const counters = async () => [{ name: 'lo' }, { name: 'eth0' }]
  const { reader, asked } = setUp(pod, { readings: {}, counters })
  const { network } = await reader.of(pod)
  assert.equal(network?.defaultInterface.name, 'eth0')
  assert.deepEqual(asked, ['/nonexistent/run/pods/p/ns/net'])
})

test('no network in the node’s namespace or after the stop; one that cannot be read fails nothing else', async () => {
  const unread = { readings: {}, group: GROUP, counters: () => Promise.reject(new Error('no namespace')) }
  for (const pod of [podOf({ network: 'node' }), { ...podOf({}), phase: 'notready' as const }]) {
    const { reader, asked } = setUp(pod, unread)
    assert.equal((await reader.of(pod)).network, undefined)
    assert.deepEqual(asked, [])
  }
  const pod = podOf({ cgroup: '/berth/pod-p' })
  const { cpu, network } = await setUp(pod, unread).reader.of(pod)
  assert.equal(network, undefined)
  assert.equal(cpu?.usageNs, 70n)
})

test('a list leaves out what is gone when its turn comes', async () => {
  const pod = podOf({})
  const { reader, pods } = setUp(pod, { readings: {} })
  const list = reader.ofAll([pod, pod])
  setImmediate(() => pods.delete('p'))
  assert.equal((await list).length, 1)
})
