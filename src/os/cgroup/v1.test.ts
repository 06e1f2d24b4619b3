import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { MountEntry } from '../mountinfo.ts'
import { CgroupsV1, limitFiles } from './v1.ts'

/** Files of one group per hierarchy, as Linux 6.1 writes them. */
const GROUP = {
  memory: {
    'cgroup.procs': '12\n',
    'memory.usage_in_bytes': '10000\n',
    'memory.limit_in_bytes': '67108864\n',
    'memory.soft_limit_in_bytes': '33554432\n',
    'memory.memsw.limit_in_bytes': '68157440\n',
    'memory.max_usage_in_bytes': '20000\n',
    'memory.failcnt': '9\n',
    'memory.kmem.usage_in_bytes': '900\n',
    'memory.stat':
      'cache 1\ntotal_cache 5000\ntotal_rss 4000\ntotal_mapped_file 700\ntotal_pgfault 31\ntotal_pgmajfault 2\ntotal_swap 300\ntotal_inactive_file 2500\n',
    'memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 2\n',
  },
  'cpu,cpuacct': {
    'cpuacct.usage': '1500000000\n',
    'cpuacct.usage_user': '1000000000\n',
    'cpuacct.usage_sys': '500000000\n',
    'cpu.stat': 'nr_periods 10\nnr_throttled 4\nthrottled_time 77000\n',
    'cpu.shares': '1024\n',
    'cpu.cfs_quota_us': '-1\n',
    'cpu.cfs_period_us': '100000\n',
  },
  pids: { 'pids.current': '3\n', 'pids.max': 'max\n' },
}

function fakeHost(t: TestContext): { root: string; cgroups: CgroupsV1 } {
  const root = mkdtempSync(join(tmpdir(), 'berth-cgroup1-'))
  t.after(() => rmSync(root, { recursive: true }))
  const mounts = Object.entries(GROUP).map(([controllers, files]): MountEntry => {
    const mountPoint = join(root, controllers)
    mkdirSync(join(mountPoint, 'pod/box'), { recursive: true })
    for (const [name, text] of Object.entries(files)) writeFileSync(join(mountPoint, 'pod', name), text)
    const superOptions = ['rw', ...controllers.split(',')]
    const line = {
      id: 1,
      parent: 1,
      root: '/',
      shared: false,
      slave: false,
      source: 'cgroup',
      device: '0:30',
    }
    return { ...line, mountPoint, type: 'cgroup', superOptions }
  })
  return { root, cgroups: new CgroupsV1(mounts) }
}

test('all figures of a group, from hierarchies that hold one or two controllers', t => {
  const { cgroups } = fakeHost(t)
  const stats = cgroups.stats('/pod')!
  assert.deepEqual(stats.cpu, {
    usageNs: 1_500_000_000n,
    userNs: 1_000_000_000n,
    systemNs: 500_000_000n,
    periods: 10n,
    throttledPeriods: 4n,
    throttledNs: 77_000n,
  })
  assert.deepEqual(stats.memory, {
    usage: 10_000n,
    limit: 67_108_864n,
    reservation: 33_554_432n,
    maxUsage: 20_000n,
    workingSet: 7_500n,
    rss: 4_000n,
    cache: 5_000n,
    mappedFile: 700n,
    pageFaults: 31n,
    majorPageFaults: 2n,
    failcnt: 9n,
    kernel: 900n,
    swap: 300n,
    swapLimit: 1_048_576n,
  })
  assert.deepEqual(stats.pids, { current: 3n, limit: 0n })
  assert.equal('pressure' in stats, false)
})

test('kills of the groups below are added', t => {
  const { root, cgroups } = fakeHost(t)
  writeFileSync(join(root, 'memory/pod/box/memory.oom_control'), 'oom_kill 5\n')
  assert.equal(cgroups.oomKills('/pod'), 7)
})

test('limits in force; controllers that are not mounted are left out', t => {
  const { cgroups } = fakeHost(t)
  assert.deepEqual(cgroups.applied('/pod'), {
    cpuShares: 1024,
    cpuQuota: -1,
    cpuPeriod: 100_000,
    memoryLimit: 67_108_864,
    memorySwapLimit: 68_157_440,
  })
})

test('limits go to the controllers that are mounted', async t => {
  const { root, cgroups } = fakeHost(t)
  await cgroups.writeLimits('/pod', { cpu: { quota: 20_000, cpus: '0' }, pids: { limit: 100 } })
  assert.match(readFileSync(join(root, 'cpu,cpuacct/pod/cpu.cfs_quota_us'), 'utf8'), /^20000/)
  assert.match(readFileSync(join(root, 'pids/pod/pids.max'), 'utf8'), /^100/)
})

test('what is not given, 0 for swap included, is not written', () => {
  const written = limitFiles({ memory: { limit: 5, swap: 0 }, pids: { limit: 0 }, cpu: { cpus: '' } })
  assert.deepEqual(
    written.flatMap(({ writes }) => writes),
    [
      ['memory.limit_in_bytes', '5'],
      ['pids.max', 'max'],
    ],
  )
})
