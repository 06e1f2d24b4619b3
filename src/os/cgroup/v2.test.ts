import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isCode } from '../../base/errors.ts'
import { CgroupsV2, limitFiles } from './v2.ts'

/** A plain directory with the files of a group, as Linux 6.8 writes them. */
const GROUP = {
  'cgroup.procs': '12\n0\n13\n',
  'cpu.stat':
    'usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 77\n',
  'cpu.max': '50000 100000\n',
  'cpu.weight': '39\n',
  'cpu.pressure':
    'some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
  'memory.pressure':
    'some avg10=0.00 avg60=0.00 avg300=0.00 total=6\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n',
  'io.pressure':
    'some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n',
  'cpuset.cpus': '0-1\n',
  'cpuset.mems': '\n',
  'memory.current': '10000\n',
  'memory.max': '67108864\n',
  'memory.low': '33554432\n',
  'memory.peak': '20000\n',
  'memory.swap.current': '300\n',
  'memory.swap.max': '1048576\n',
  'memory.stat':
    'anon 4000\nfile 5000\nkernel 900\nfile_mapped 700\ninactive_file 2500\npgfault 31\npgmajfault 2\n',
  'memory.events': 'low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n',
  'pids.current': '3\n',
  'pids.max': 'max\n',
  'io.stat': '254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n',
}

function fakeRoot(
  t: TestContext,
  files: Record<string, string> = GROUP,
): { root: string; cgroups: CgroupsV2 } {
  const root = mkdtempSync(join(tmpdir(), 'berth-cgroup2-'))
  t.after(() => rmSync(root, { recursive: true }))
  mkdirSync(join(root, 'pod/box'), { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, 'pod', name), text)
  return { root, cgroups: new CgroupsV2(root) }
}

test('all figures of a group', t => {
  const { cgroups } = fakeRoot(t)
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
  assert.deepEqual(stats.pressure?.io.full.total, 2000n)
  assert.deepEqual(stats.io, [{ device: '254:0', readBytes: 1n, writeBytes: 2n, reads: 3n, writes: 4n }])
  assert.equal(cgroups.oomKills('/pod'), 2)
})

test('a kernel without peak, swap accounting and pressure', t => {
  const { 'memory.current': current, 'memory.stat': stat } = GROUP
  const { cgroups } = fakeRoot(t, { 'memory.current': current, 'memory.stat': stat })
  const stats = cgroups.stats('/pod')!
  assert.equal(stats.memory.maxUsage, 10_000n)
  assert.equal('swap' in stats.memory, false)
  assert.equal('pressure' in stats, false)
  assert.deepEqual(cgroups.applied('/pod'), {})
})

test('a group that is gone', async t => {
  const { cgroups } = fakeRoot(t)
  assert.equal(cgroups.stats('/gone'), undefined)
  assert.equal(cgroups.exists('/gone'), false)
  assert.deepEqual(cgroups.pids('/gone'), [])
  assert.equal(cgroups.oomKills('/gone'), 0)
  await cgroups.remove('/gone')
})

test('limits in force, memory and swap summed as the OCI counts them', t => {
  const { cgroups } = fakeRoot(t)
  assert.deepEqual(cgroups.applied('/pod'), {
    cpuShares: 998,
    cpuQuota: 50_000,
    cpuPeriod: 100_000,
    cpusetCpus: '0-1',
    memoryLimit: 67_108_864,
    memorySwapLimit: 68_157_440,
  })
})

test('processes of the group and below; those of foreign pid namespaces (0) are left out', t => {
  const { root, cgroups } = fakeRoot(t)
  writeFileSync(join(root, 'pod/box/cgroup.procs'), '99\n')
  assert.deepEqual(cgroups.pids('/pod'), [99, 12, 13])
})

test('new groups get the controllers of their parents, one write each', async t => {
  const { root, cgroups } = fakeRoot(t, { 'cgroup.controllers': '', 'cgroup.subtree_control': '' })
  writeFileSync(join(root, 'cgroup.controllers'), 'cpu memory pids\n')
  writeFileSync(join(root, 'cgroup.subtree_control'), 'cpu pids\n')
  await cgroups.create('/pod/new')
  // A plain file keeps what was not overwritten: +memory over the start of "cpu pids\n".
  assert.equal(readFileSync(join(root, 'cgroup.subtree_control'), 'utf8'), '+memorys\n')
  assert.equal(cgroups.exists('/pod/new'), true)
  await cgroups.create('/pod/new')
})

test('limits as files, in order', () => {
  const MiB = 2 ** 20
  const all = {
    memory: { limit: 64 * MiB, swap: 80 * MiB, reservation: 16 * MiB },
    cpu: { shares: 1024, quota: 20_000, period: 100_000, cpus: '0', mems: '0' },
    pids: { limit: 100 },
    unified: { 'memory.high': '60000000' },
  }
  assert.deepEqual(limitFiles(all, -1), [
    ['memory.max', `${64 * MiB}`],
    ['memory.swap.max', `${16 * MiB}`],
    ['memory.low', `${16 * MiB}`],
    ['cpu.weight', '39'],
    ['cpu.max', '20000 100000'],
    ['cpuset.cpus', '0'],
    ['cpuset.mems', '0'],
    ['pids.max', '100'],
    ['memory.high', '60000000'],
  ])
  assert.deepEqual(limitFiles({}, -1), [])
})

test('a value of several lines is written line by line', async t => {
  const { root, cgroups } = fakeRoot(t, { 'io.max': '', 'cpu.max': 'max 100000' })
  await cgroups.writeLimits('/pod', { unified: { 'io.max': '8:16 rbps=1048576 wiops=120\n8:0 rbps=max\n' } })
  // A plain file keeps what was not overwritten: the second line over the start of the first.
  assert.equal(readFileSync(join(root, 'pod/io.max'), 'utf8'), '8:0 rbps=max48576 wiops=120')
})

test('no limit, and a period that keeps the quota', () => {
  const none = { memory: { limit: -1, swap: -1 }, cpu: { quota: -1 }, pids: { limit: -1 } }
  assert.deepEqual(limitFiles(none, 5), [
    ['memory.max', 'max'],
    ['memory.swap.max', 'max'],
    ['cpu.max', 'max'],
    ['pids.max', 'max'],
  ])
  assert.deepEqual(limitFiles({ cpu: { period: 50_000 } }, 20_000), [['cpu.max', '20000 50000']])
  assert.deepEqual(limitFiles({ cpu: { period: 50_000 } }, -1), [['cpu.max', 'max 50000']])
})

test('a unified key that is a path is refused', () => {
  for (const key of ['../x.y', 'memory/high', 'cgroup', '']) {
    assert.throws(
      () => limitFiles({ unified: { [key]: '1' } }, -1),
      error => isCode(error, 'invalid'),
    )
  }
})

test('a path that is not absolute and clean names no group', t => {
  const { cgroups } = fakeRoot(t)
  for (const path of ['', '/', 'pod', '/pod/', '/pod/../x', '//pod'])
    assert.throws(() => cgroups.exists(path), /clean/)
})
