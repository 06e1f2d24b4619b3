import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { MountEntry } from '../mountinfo.ts'
import type { Cgroups } from './cgroup.ts'
import { propertiesOf, SystemdCgroups } from './systemd.ts'
import { CgroupsV1 } from './v1.ts'
import { CgroupsV2 } from './v2.ts'

/** The slice of a pod and a scope in it whose kills `file` counts, and what is asked of the log. */
function slice(
  t: TestContext,
  { file, version }: { file: string; version: 1 | 2 },
): { count: (group: string, kills: number) => void; units: Cgroups; asked: string[] } {
  const root = mkdtempSync(join(tmpdir(), 'berth-units-'))
  t.after(() => rmSync(root, { recursive: true }))
  mkdirSync(join(root, 'pod.slice/here.scope'), { recursive: true })
  const line = { id: 1, parent: 1, root: '/', shared: false, slave: false, source: 'cgroup', device: '0:30' }
  const memory: MountEntry = { ...line, mountPoint: root, type: 'cgroup', superOptions: ['rw', 'memory'] }
  const asked: string[] = []
  const log = {
    tellsOf: async (group: string) => {
      asked.push(group)
      return true
    },
  }
  const files = version === 1 ? new CgroupsV1([memory]) : new CgroupsV2(root)
  return {
    count: (group, kills) => writeFileSync(join(root, group, file), `oom_kill ${kills}\n`),
    units: new SystemdCgroups(files, { busctl: '', systemctl: '', log }),
    asked,
  }
}

const VERSIONS = [
  { version: 1, file: 'memory.oom_control' },
  { version: 2, file: 'memory.events' },
] as const

for (const kind of VERSIONS) {
  test(`version ${kind.version}: the counter of a scope is what counts, and the log only when it is gone`, async t => {
    const { count, units, asked } = slice(t, kind)
    count('pod.slice', 3)
    count('pod.slice/here.scope', 0)
    assert.equal(await units.wasOomKilled('/pod.slice/here.scope'), false)
    count('pod.slice/here.scope', 1)
    assert.equal(await units.wasOomKilled('/pod.slice/here.scope'), true)
    assert.equal(await units.wasOomKilled('/pod.slice/no-unit'), false)
    assert.deepEqual(asked, [])
    assert.equal(await units.wasOomKilled('/pod.slice/gone.scope'), true)
    assert.equal(await units.wasOomKilled('/gone.slice/gone.scope'), true)
    assert.deepEqual(asked, ['/pod.slice/gone.scope', '/gone.slice/gone.scope'])
  })

  test(`version ${kind.version}: a slice that saw no kill ${kind.version === 2 ? 'answers for a scope that is gone' : 'says nothing of those below'}`, async t => {
    const { count, units, asked } = slice(t, kind)
    count('pod.slice', 0)
    assert.equal(await units.wasOomKilled('/pod.slice/gone.scope'), kind.version === 1)
    assert.equal(asked.length, kind.version === 1 ? 1 : 0)
  })
}

test('resources become the properties of a unit', () => {
  assert.deepEqual(
    propertiesOf({
      cpu: { shares: 1024, quota: 75_000, period: 50_000, cpus: '0-1', mems: '0' },
      memory: { limit: 64, swap: 96, reservation: 32 },
      pids: { limit: 10 },
    }),
    [
      'CPUWeight=39',
      'CPUQuotaPeriodSec=50000us',
      'CPUQuota=150%',
      'AllowedCPUs=0-1',
      'AllowedMemoryNodes=0',
      'MemoryMax=64',
      'MemorySwapMax=32',
      'MemoryLow=32',
      'TasksMax=10',
    ],
  )
})

test('no limit is said as systemd says it, and what is not given stays', () => {
  assert.deepEqual(
    propertiesOf({ cpu: { quota: -1 }, memory: { limit: -1, swap: -1 }, pids: { limit: 0 } }),
    ['CPUQuota=', 'MemoryMax=infinity', 'MemorySwapMax=infinity', 'TasksMax=infinity'],
  )
  assert.deepEqual(propertiesOf({ cpu: { shares: 0 }, memory: { swap: 0 } }), [])
})
