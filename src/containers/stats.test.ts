import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Container, ContainerPhase } from '../model/container.ts'
import type { Log } from '../observe/log.ts'
import type { CgroupStats } from '../os/cgroup/cgroup.ts'
import { ContainerStatsReader } from './stats.ts'

const SAMPLE: CgroupStats = {
  timestamp: 5n,
  cpu: { usageNs: 70n, userNs: 0n, systemNs: 0n, periods: 0n, throttledPeriods: 0n, throttledNs: 0n },
  memory: {
    usage: 100n,
    reservation: 0n,
    limit: 0n,
    maxUsage: 0n,
    workingSet: 60n,
    rss: 40n,
    cache: 0n,
    mappedFile: 0n,
    pageFaults: 0n,
    majorPageFaults: 0n,
  },
  pids: { current: 3n, limit: 0n },
}

function container(id: string, phase: ContainerPhase): Container {
  return { id, phase, cgroup: `/pod/${id}` } as Container
}

function setUp(containers: readonly Container[], groups: Readonly<Record<string, CgroupStats>>) {
  const rows = new Map(containers.map(row => [row.id, row]))
  const reads: string[] = []
  const reader = new ContainerStatsReader({
    catalog: { container: id => rows.get(id) },
    cgroups: {
      stats: path => {
        reads.push(path)
        return groups[path]
      },
    },
    snapshots: { upperPath: id => `/nonexistent/${id}` },
    mountpoint: '/layers',
    log: {} as Log,
  })
  return { rows, reads, reader }
}

for (const phase of ['created', 'running', 'unknown'] as const) {
  test(`a container that is ${phase} has the figures of its control group`, () => {
    const it = container('a', phase)
    const { stats, processes } = setUp([it], { '/pod/a': SAMPLE }).reader.read(it)
    assert.equal(stats.container, it)
    assert.equal(stats.timestamp, 5n)
    assert.equal(stats.cpu?.usageNs, 70n)
    assert.equal(stats.memory?.workingSet, 60n)
    assert.equal(processes, 3n)
  })
}

test('one that has just exited, or whose exit is known, has disk usage and a time only', () => {
  for (const phase of ['running', 'exited', 'removing'] as const) {
    const it = container('a', phase)
    const { reader, reads } = setUp([it], {})
    const { stats, processes } = reader.read(it)
    assert.equal(stats.cpu, undefined)
    assert.equal(stats.memory, undefined)
    assert.equal(processes, 0n)
    assert.ok(stats.timestamp > 0n)
    assert.equal(stats.writable.mountpoint, '/layers')
    assert.deepEqual(reads, phase === 'running' ? ['/pod/a'] : [])
  }
})

test('a long list gives other work its turn; what vanishes or changes meanwhile shows as it is then', async () => {
  const all = Array.from({ length: 40 }, (_, i) => container(`c${i}`, 'running'))
  const groups = Object.fromEntries(all.map(({ cgroup }) => [cgroup, SAMPLE]))
  const { reader, rows } = setUp(all, groups)
  setImmediate(() => {
    rows.delete('c0')
    rows.delete('c39')
    rows.set('c38', container('c38', 'exited'))
  })
  const stats = await reader.ofAll(all)
  assert.deepEqual(
    stats.map(({ container: { id } }) => id),
    all.slice(0, 39).map(({ id }) => id),
  )
  assert.equal(stats.at(-1)?.cpu, undefined)
})
