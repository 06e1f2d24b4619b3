import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hugepageSizes, readHugetlb, writeHugetlbLimits } from './hugetlb.ts'
import { CgroupsV1 } from './v1.ts'
import { CgroupsV2 } from './v2.ts'

function directory(t: TestContext, files: Record<string, string> = {}): string {
  const dir = mkdtempSync(join(tmpdir(), 'berth-hugetlb-'))
  t.after(() => rmSync(dir, { recursive: true }))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text)
  return dir
}

const contents = (dir: string) =>
  Object.fromEntries(readdirSync(dir).map(name => [name, readFileSync(join(dir, name), 'utf8')]))

const V1 = {
  'hugetlb.2MB.usage_in_bytes': '2097152\n',
  'hugetlb.2MB.max_usage_in_bytes': '4194304\n',
  'hugetlb.2MB.limit_in_bytes': '9223372036854771712\n',
}
const V1_RESERVED = {
  'hugetlb.2MB.rsvd.usage_in_bytes': '6291456\n',
  'hugetlb.2MB.rsvd.max_usage_in_bytes': '8388608\n',
  'hugetlb.2MB.rsvd.limit_in_bytes': '9223372036854771712\n',
}

test('page sizes have the names that control groups give them', t => {
  const dir = directory(t)
  for (const kib of [64, 2048, 32768, 1048576, 16777216]) mkdirSync(join(dir, `hugepages-${kib}kB`))
  mkdirSync(join(dir, 'other'))
  assert.deepEqual(new Set(hugepageSizes(dir)), new Set(['64KB', '2MB', '32MB', '1GB', '16GB']))
  assert.deepEqual(hugepageSizes(join(dir, 'none')), [])
})

test('version 1: what is reserved counts where the kernel tells, else what is in use', t => {
  const older = directory(t, V1)
  const newer = directory(t, { ...V1, ...V1_RESERVED })
  const read = (dir: string) => readHugetlb(dir, 1, ['2MB', '1GB'])
  assert.deepEqual(read(older), [{ pageSize: '2MB', usage: 2n << 20n, maxUsage: 4n << 20n }])
  assert.deepEqual(read(newer), [{ pageSize: '2MB', usage: 6n << 20n, maxUsage: 8n << 20n }])
})

test('version 2 keeps no highest usage', t => {
  const dir = directory(t, {
    'hugetlb.2MB.current': '0\n',
    'hugetlb.2MB.rsvd.current': '2097152\n',
    'hugetlb.1GB.current': '1073741824\n',
  })
  assert.deepEqual(readHugetlb(dir, 2, ['2MB', '1GB']), [
    { pageSize: '2MB', usage: 2n << 20n },
    { pageSize: '1GB', usage: 1n << 30n },
  ])
  assert.deepEqual(readHugetlb(join(dir, 'gone'), 2, ['2MB']), [])
})

test('a limit is that of pages in use and of those reserved, where there is one', t => {
  const limits = [{ pageSize: '2MB', limit: 4 << 20 }]
  const older = directory(t, { 'hugetlb.2MB.max': '' })
  writeHugetlbLimits(older, 2, limits)
  assert.deepEqual(contents(older), { 'hugetlb.2MB.max': '4194304' })
  const newer = directory(t, { 'hugetlb.2MB.limit_in_bytes': '', 'hugetlb.2MB.rsvd.limit_in_bytes': '' })
  writeHugetlbLimits(newer, 1, limits)
  assert.deepEqual(contents(newer), {
    'hugetlb.2MB.limit_in_bytes': '4194304',
    'hugetlb.2MB.rsvd.limit_in_bytes': '4194304',
  })
  assert.throws(() => writeHugetlbLimits(older, 2, [{ pageSize: '1GB', limit: 0 }]), { code: 'ENOENT' })
})

test('groups of both versions, with the controller and without', async t => {
  const root = directory(t)
  mkdirSync(join(root, 'pod'))
  for (const [name, text] of Object.entries(V1)) writeFileSync(join(root, 'pod', name), text)
  const line = { id: 1, parent: 1, root: '/', shared: false, slave: false, source: 'cgroup', device: '0:30' }
  const mount = { ...line, mountPoint: root, type: 'cgroup', superOptions: ['rw', 'hugetlb'] }
  const v1 = new CgroupsV1([mount], ['2MB'])
  await v1.writeLimits('/pod', { hugepageLimits: [{ pageSize: '2MB', limit: 0 }] })
  assert.match(readFileSync(join(root, 'pod/hugetlb.2MB.limit_in_bytes'), 'utf8'), /^0/)
  assert.deepEqual(v1.hugetlb('/pod'), [{ pageSize: '2MB', usage: 2n << 20n, maxUsage: 4n << 20n }])
  const without = new CgroupsV1([{ ...mount, superOptions: ['rw', 'pids'] }], ['2MB'])
  await without.writeLimits('/pod', { hugepageLimits: [{ pageSize: '2MB', limit: 0 }] })
  assert.deepEqual(without.hugetlb('/pod'), [])
  writeFileSync(join(root, 'pod/hugetlb.2MB.current'), '2097152\n')
  assert.deepEqual(new CgroupsV2(root, ['2MB', '1GB']).hugetlb('/pod'), [
    { pageSize: '2MB', usage: 2n << 20n },
  ])
})
