import assert from 'node:assert/strict'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { SnapshotStore, until } from '../support/snapshot-store.ts'
import { type TarFixture, tar, tarEntry } from '../support/tar.ts'

/*
 * Layers made to harm the node that unpacks them, by what once went wrong elsewhere: docs/security.md has the list.
 */

const store = new SnapshotStore()

/** A directory of the node, with everything about it that an attack could change. */
function sentinel(name: string): { path: string; look: () => string[] } {
  const path = store.path(name)
  mkdirSync(path)
  writeFileSync(join(path, 'secret'), 'safe', { mode: 0o600 })
  const look = () =>
    ['.', ...readdirSync(path)].sort().map(entry => {
      const { mode, uid, gid, nlink, size, mtimeNs } = lstatSync(join(path, entry), { bigint: true })
      return [entry, mode, uid, gid, nlink, size, mtimeNs].join(' ')
    })
  return { path, look }
}

/** The unpack workers of this process. */
function workers(): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8')
        const isOurs = Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1]) === process.pid
        return isOurs && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('unpack-worker')
      } catch {
        return false // it has ended meanwhile
      }
    })
}

test('CVE-2025-47290: a directory that is replaced by a symlink leads nowhere', async () => {
  const { path, look } = sentinel('47290')
  const before = look()
  const [top = ''] = await store.layers([
    { name: 'a/' },
    { name: 'a/first', content: '1' },
    { name: 'a', symlink: path },
    { name: 'a/x', content: 'x' },
    { name: 'a/secret', content: 'x' },
    { name: 'a/.wh.secret' },
  ])
  assert.deepEqual(look(), before)
  assert.equal(readFileSync(join(top, path, 'x'), 'utf8'), 'x', 'inside the layer the symlink counts')
})

test('CVE-2021-32760: no mode, owner or time is set through a link', async () => {
  const { path, look } = sentinel('32760')
  const before = look()
  const [top = ''] = await store.layers([
    { name: 'soft', symlink: `${path}/secret`, mode: 0o4777, uid: 7, gid: 7 },
    { name: 'hard', link: 'soft', mode: 0o4777, uid: 8, gid: 8 },
  ])
  assert.deepEqual(look(), before)
  for (const name of ['soft', 'hard']) assert.equal(readlinkSync(join(top, name)), `${path}/secret`)
  assert.equal(lstatSync(join(top, 'soft')).ino, lstatSync(join(top, 'hard')).ino)
  await assert.rejects(store.layers([{ name: 'f', link: `${path}/secret`, mode: 0o777 }]), {
    code: 'invalid',
  })
  assert.deepEqual(look(), before)
})

test('CVE-2018-15664: no order of entries, links and whiteouts reaches out of the layer', async () => {
  const { path: outside, look } = sentinel('15664')
  const before = look()
  const up = `${'../'.repeat(12)}${outside.slice(1)}`
  const target = fc.constantFrom(outside, up, `${outside}/secret`, '/', '..', 'a', 'a/b', 'b', '.')
  const name = fc.constantFrom(
    'a',
    'b',
    'a/b',
    'b/secret',
    'a/secret',
    'a/b/c',
    'a/',
    'b/',
    outside,
    `${outside}/secret`,
  )
  const entry: fc.Arbitrary<TarFixture> = fc.oneof(
    fc.record({ name, symlink: target, mode: fc.constant(0o777) }),
    fc.record({ name, link: target }),
    fc.record({ name, content: fc.constant('x'), mode: fc.constant(0o4777), uid: fc.constant(9) }),
    fc.record({ name, type: fc.constantFrom('5', '6', '3'), mode: fc.constant(0o777) }),
    name.map(one => ({ name: one.replace(/([^/]+)\/?$/, '.wh.$1') })),
    name.map(one => ({ name: `${one}/.wh..wh..opq` })),
  )
  let unpacked = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(entry, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 3 }),
      async layers => {
        const made = await store.layers(...layers).catch(error => {
          assert.ok(['invalid', 'exhausted'].includes(error.code), error)
          return undefined
        })
        if (made !== undefined) unpacked++
        assert.deepEqual(look(), before)
      },
    ),
    { numRuns: 30, seed: 1 },
  )
  assert.ok(unpacked > 5, String(unpacked))
})

test('CVE-2019-14271: nothing that a layer brings is loaded by who unpacks it', async () => {
  const library = Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(2000)])
  const names = [
    'libnss_files.so.2',
    'libnss_dns.so.2',
    'libc.so.6',
    'koffi.node',
    'libz.so.1',
    'libgcc_s.so.1',
  ]
  const folders = [
    'lib',
    'lib64',
    'usr/lib',
    'lib/x86_64-linux-gnu',
    'usr/lib/x86_64-linux-gnu',
    'node_modules',
  ]
  const texts = [
    'etc/nsswitch.conf',
    'etc/passwd',
    'etc/group',
    'etc/ld.so.preload',
    'etc/ld.so.cache',
    'etc/hosts',
    'etc/localtime',
  ]
  const files = [...folders.flatMap(folder => names.map(name => `${folder}/${name}`)), ...texts]
  const entries = files.map((name): TarFixture => ({ name, content: library, mode: 0o755, mtime: 1 }))
  const { staging } = await store.unpack([...entries, { name: 'last', content: 'x', uid: 1000, gid: 1000 }])
  const read = files.filter(name => lstatSync(join(staging, name)).atimeMs !== 1000)
  assert.deepEqual(read, [])
  for (const pid of workers()) assert.ok(!readFileSync(`/proc/${pid}/maps`, 'utf8').includes(staging))
  readFileSync(join(staging, 'etc/passwd'))
  assert.notEqual(lstatSync(join(staging, 'etc/passwd')).atimeMs, 1000, 'a file that is read shows it')
})

test('CVE-2025-58183, CVE-2017-14992: endless headers cost no memory, sparse files are refused', async () => {
  const mebibyte = tarEntry({
    name: 'PaxHeaders/x',
    type: 'x',
    content: `1048576 comment=${'c'.repeat(1048576 - 17)}\n`,
  })
  const file = tarEntry({ name: 'f', content: 'x' })
  const headers = function* () {
    for (let i = 0; i < 200; i++) yield i % 40 === 39 ? Buffer.concat([mebibyte, file]) : mebibyte
    yield tar([file])
  }
  await store.unpackBytes(Readable.from(headers()), undefined, { maxBytes: 2 ** 30 })
  const peaks = workers().map(pid =>
    Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]),
  )
  assert.ok(peaks.length > 0 && Math.max(...peaks) < 256 * 1024, `${peaks} KiB for 200 MiB of headers`)
  const sparse: Array<readonly [RegExp, TarFixture]> = [
    [/sparse/, { name: 's', type: 'S', claimedSize: 2 ** 30 }],
    [/sparse/, { name: 's', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.map': '0,1,'.repeat(10_000) } }],
    [/extended header of 1073741824 bytes/, { name: 'x', type: 'x', claimedSize: 2 ** 30 }],
    [/extended header of 1073741824 bytes/, { name: 'x', type: 'L', claimedSize: 2 ** 30 }],
  ]
  for (const [message, entry] of sparse)
    await assert.rejects(store.unpack([entry]), { code: 'invalid', message })
})

test('bz1982526: trees too deep, too many or too large are refused, and nothing of them stays', async () => {
  const empty = Buffer.concat(Array.from({ length: 10_001 }, (_, i) => tarEntry({ name: `f${i}` })))
  const bomb = gzipSync(tar([{ name: 'zeros', content: Buffer.alloc(20_000_000) }]))
  const cases: Array<readonly [RegExp, Buffer, object]> = [
    [/at most 256 components/, tar([{ name: `${'d/'.repeat(300)}f` }]), { maxDepth: 256 }],
    [/more than 10000 entries/, empty, {}],
    [/times as many/, bomb, { maxRatio: 100, ratioFloor: 1_000_000 }],
    [/larger than/, bomb, { maxBytes: 1_000_000 }],
  ]
  for (const [message, blob, limits] of cases) {
    const staging = store.snapshots.stagingPath('bomb')
    await assert.rejects(store.unpackBytes(blob, staging, limits), { code: 'exhausted', message })
    store.snapshots.discard(staging)
    assert.ok(!existsSync(staging))
  }
  await store.emptied()
})

test('CVE-2021-20291: a layer that is no layer ends, and leaves no process behind', async () => {
  const gzip = gzipSync(tar([{ name: 'f', content: Buffer.alloc(1_000_000, 'x') }]))
  const broken = [
    gzip.subarray(0, 300),
    Buffer.from('garbage'.repeat(500)),
    Buffer.alloc(10),
    gzip.subarray(0, 12),
  ]
  for (const blob of broken) await assert.rejects(store.unpackBytes(blob), { code: 'invalid' })
  await store.unpackBytes(gzip)
  await until(() => workers().length <= 2, 'no more workers than there may be')
})
