import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  globSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { SnapshotStore, until } from '../support/snapshot-store.ts'
import { type TarFixture, tar } from '../support/tar.ts'

const store = new SnapshotStore()

const noise = randomBytes(3_000_000)
const archive = tar([
  { name: 'd/' },
  { name: 'd/noise', content: noise },
  { name: 'zeros', content: Buffer.alloc(2_000_000) },
])

function digest(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** A stream that delivers `bytes` in pieces, then stays open until it is destroyed. */
function stalled(bytes: Buffer): Readable {
  const stream = new Readable({ read: () => undefined })
  for (let at = 0; at < bytes.length; at += 65_536) stream.push(bytes.subarray(at, at + 65_536))
  return stream
}

/** Ids of the unpack workers that this process has. */
function workers(parent = process.pid): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        const parentId = /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
        return (
          Number(parentId) === parent &&
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('unpack-worker')
        )
      } catch {
        return false // it has ended meanwhile
      }
    })
}

function running(program: string): number {
  return readdirSync('/proc').filter(name => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/exe`) === program
    } catch {
      return false
    }
  }).length
}

const LIMITS = { maxEntries: 100, maxDepth: 64, maxBytes: 1e9, maxRatio: 0, ratioFloor: 0 }
const never = new AbortController().signal

test('every form of compression gives the same layer; padding counts', async () => {
  const half = 1_500_000
  const padded = Buffer.concat([archive, Buffer.alloc(10_240)])
  const forms: Array<readonly [blob: Buffer, content: Buffer]> = [
    [archive, archive],
    [gzipSync(archive), archive],
    [zstdCompressSync(archive), archive],
    [Buffer.concat([gzipSync(archive.subarray(0, half)), gzipSync(archive.subarray(half))]), archive],
    [
      Buffer.concat([zstdCompressSync(archive.subarray(0, half)), zstdCompressSync(archive.subarray(half))]),
      archive,
    ],
    [gzipSync(padded), padded],
    [padded, padded],
  ]
  for (const [blob, content] of forms) {
    const staging = store.snapshots.stagingPath('form')
    const layer = await store.unpackBytes(blob, staging)
    assert.deepEqual(
      [layer.blobDigest, layer.blobSize, layer.diffId],
      [digest(blob), blob.length, digest(content)],
    )
    assert.deepEqual(readFileSync(join(staging, 'd/noise')), noise)
    assert.deepEqual(readFileSync(join(staging, 'zeros')), Buffer.alloc(2_000_000))
    assert.equal(layer.inodes, 4)
    assert.ok(layer.size >= 5_000_000 && layer.size < 5_100_000, String(layer.size))
  }
})

test('a layer without entries is empty', async () => {
  for (const blob of [Buffer.alloc(0), tar([]), gzipSync(tar([])), gzipSync('')]) {
    const staging = store.snapshots.stagingPath('empty')
    const layer = await store.unpackBytes(blob, staging)
    assert.deepEqual([layer.inodes, layer.implied, readdirSync(staging)], [1, [''], []])
    assert.equal(lstatSync(staging).mode & 0o7777, 0o755)
  }
})

test('what is damaged is refused, and the next layer unpacks', async () => {
  const gzip = gzipSync(archive)
  const flipped = Buffer.from(gzip)
  flipped[flipped.length - 6]! ^= 0xff // in the checksum
  const cases: Array<readonly [RegExp, Buffer]> = [
    [/gzip: /, gzip.subarray(0, gzip.length / 2)],
    [/gzip: /, gzip.subarray(0, 20)],
    [/gzip: /, flipped],
    [/zstd/, zstdCompressSync(archive).subarray(0, 100_000)],
    [/tar: no tar archive/, randomBytes(100_000)],
    [/tar: ends unexpectedly/, archive.subarray(0, 1_000_000)],
    [/tar: ends unexpectedly/, Buffer.from('x')],
  ]
  for (const [message, blob] of cases) {
    await assert.rejects(store.unpackBytes(blob), { code: 'invalid', message })
    await store.unpackBytes(gzip)
  }
})

test('a gzip program gives the same layers, refuses the same, and is never left behind', async () => {
  const half = 1_500_000
  const forms = [
    gzipSync(archive),
    Buffer.concat([gzipSync(archive.subarray(0, half)), gzipSync(archive.subarray(half))]),
    Buffer.concat([gzipSync(archive), Buffer.alloc(1000)]),
    zstdCompressSync(archive),
    archive,
  ]
  const damaged = gzipSync(archive)
  damaged[damaged.length - 6]! ^= 0xff
  // The last one was there when the daemon started.
  for (const program of ['/usr/bin/igzip', '/usr/bin/gzip', '/usr/bin/no-such-gzip']) {
    const own = store.open(program)
    const unpack = (blob: Buffer | Readable, name: string, limits = LIMITS, signal = never) =>
      own.unpack(
        Buffer.isBuffer(blob) ? Readable.from([blob]) : blob,
        store.path('staging', name),
        limits,
        signal,
      )
    for (const [index, blob] of forms.entries()) {
      const name = `${basename(program)}.${index}`
      const layer = await unpack(blob, name)
      assert.deepEqual(
        [layer.blobDigest, layer.blobSize, layer.diffId],
        [digest(blob), blob.length, digest(archive)],
      )
      assert.deepEqual(readFileSync(store.path('staging', name, 'd/noise')), noise)
    }
    await assert.rejects(unpack(damaged, `${basename(program)}.crc`), { code: 'invalid', message: /gzip: / })
    await assert.rejects(unpack(damaged.subarray(0, 1_000_000), `${basename(program)}.cut`), {
      code: 'invalid',
    })
    await assert.rejects(unpack(damaged, `${basename(program)}.big`, { ...LIMITS, maxBytes: 1_000_000 }), {
      code: 'exhausted',
    })
    const abort = new AbortController()
    const name = `${basename(program)}.aborted`
    const aborted = unpack(stalled(gzipSync(archive).subarray(0, 2_500_000)), name, LIMITS, abort.signal)
    await until(() => existsSync(store.path('staging', name, 'd/noise')), 'the layer is being written')
    abort.abort(new Error('enough'))
    await assert.rejects(aborted, /enough/)
    await until(() => running(program) === 0, `no ${program} is left`)
    await own.close()
  }
  assert.match(JSON.stringify(store.logged), /no-such-gzip: no such program/)
  store.snapshots.sweep()
  await store.emptied()
})

test('an error of the source is the answer', async () => {
  const source = Readable.from(
    (async function* () {
      yield gzipSync(archive).subarray(0, 1_000_000)
      throw new Error('connection lost')
    })(),
  )
  await assert.rejects(store.unpackBytes(source), { message: 'connection lost' })
})

test('limits of one layer', async () => {
  const bomb = gzipSync(tar([{ name: 'zeros', content: Buffer.alloc(50_000_000) }]))
  const deep = `${'d/'.repeat(64)}f`
  const many = Array.from({ length: 101 }, (_, i): TarFixture => ({ name: `${i}`, content: '' }))
  const implied = Array.from({ length: 60 }, (_, i): TarFixture => ({ name: `d${i}/f`, content: '' }))
  const cases: Array<readonly [RegExp, Buffer, object]> = [
    [/larger than 10000000 bytes/, bomb, { maxBytes: 10_000_000 }],
    [/more than 500 times as many/, bomb, { maxRatio: 500, ratioFloor: 10_000_000 }],
    [/at most 64 components/, tar([{ name: deep, content: 'x' }]), {}],
    [/more than 100 entries/, tar(many), { maxEntries: 100 }],
    [/more than 100 entries/, tar(implied), { maxEntries: 100 }],
    [/3072 bytes are allowed/, tar([{ name: `${'x'.repeat(200)}/`.repeat(20), type: '5' }]), {}],
  ]
  for (const [message, blob, limits] of cases) {
    await assert.rejects(store.unpackBytes(blob, undefined, limits), { code: 'exhausted', message })
  }
})

test('an abort ends the job at once, frees the source, and the others go on', async () => {
  const blob = gzipSync(archive)
  const abort = new AbortController()
  const source = stalled(blob.subarray(0, 2_000_000))
  const staging = store.snapshots.stagingPath('aborted')
  const aborted = store.unpackBytes(source, staging, {}, abort.signal)
  const waiting = new AbortController()
  const holding = new AbortController()
  const other = store.unpackBytes(stalled(blob.subarray(0, 1_000_000)), undefined, {}, holding.signal)
  const unused = stalled(blob)
  const queued = store.unpackBytes(unused, undefined, {}, waiting.signal)
  await until(() => existsSync(join(staging, 'd/noise')), 'the layer is being written')
  waiting.abort(new Error('not wanted'))
  await assert.rejects(queued, { message: 'not wanted' })
  assert.ok(unused.destroyed)
  abort.abort(new Error('given up'))
  await assert.rejects(aborted, { message: 'given up' })
  assert.ok(source.destroyed)
  assert.equal(workers().length, 1)
  await store.unpackBytes(blob)
  store.snapshots.discard(staging)
  assert.ok(!existsSync(staging))
  holding.abort(new Error('enough'))
  await assert.rejects(other, { message: 'enough' })
  const before = AbortSignal.abort(new Error('too late'))
  await assert.rejects(store.unpackBytes(blob, undefined, {}, before), { message: 'too late' })
})

test('a worker that is killed fails its layer only', async () => {
  const blob = gzipSync(archive)
  const staging = store.snapshots.stagingPath('killed')
  const killed = assert.rejects(store.unpackBytes(stalled(blob.subarray(0, 2_000_000)), staging), {
    code: 'internal',
    message: /unpack worker ended with code 137/,
  })
  await until(() => existsSync(join(staging, 'd/noise')), 'the layer is being written')
  const worker = workers().find(pid => readlinkSync(`/proc/${pid}/root`) === staging)
  assert.ok(worker !== undefined)
  process.kill(worker, 'SIGKILL')
  await killed
  await store.unpackBytes(blob)
})

test('more layers than workers', async () => {
  await Promise.all(Array.from({ length: 12 }, () => store.unpack([{ name: 'f', content: noise }])))
  assert.ok(workers().length <= 2)
})

test('closing ends the workers and what they do', async () => {
  const others = workers().length
  const snapshots = store.open()
  snapshots.prepare()
  const source = stalled(gzipSync(archive).subarray(0, 1_000_000))
  const limits = { maxEntries: 100, maxDepth: 10, maxBytes: 1e9, maxRatio: 0, ratioFloor: 0 }
  const unpacking = snapshots.unpack(
    source,
    snapshots.stagingPath('closed'),
    limits,
    new AbortController().signal,
  )
  const failed = assert.rejects(unpacking, { message: /unpack worker/ })
  await snapshots.close()
  await failed
  assert.equal(workers().length, others)
  await assert.rejects(
    snapshots.unpack(Readable.from([]), snapshots.stagingPath('after'), limits, new AbortController().signal),
    { code: 'cancelled' },
  )
})

test('the workers of a killed daemon end, and its successor clears up', async () => {
  const script = store.path('daemon.ts')
  const imports = [
    `import { createSnapshots } from ${JSON.stringify(import.meta.resolve('../../src/storage/overlay.ts'))}`,
    `import { Readable } from 'node:stream'`,
    `import { readFileSync } from 'node:fs'`,
  ]
  writeFileSync(store.path('half'), gzipSync(archive).subarray(0, 2_000_000))
  writeFileSync(
    script,
    `${imports.join('\n')}
const snapshots = createSnapshots({ root: ${JSON.stringify(store.root)}, workers: 1, gzipProgram: '/usr/bin/igzip', log: console })
const source = new Readable({ read: () => undefined })
source.push(readFileSync(${JSON.stringify(store.path('half'))}))
const limits = { maxEntries: 100, maxDepth: 10, maxBytes: 1e9, maxRatio: 0, ratioFloor: 0 }
await snapshots.unpack(source, snapshots.stagingPath('orphan'), limits, new AbortController().signal)
`,
  )
  const daemon = spawn(process.execPath, [script], { stdio: ['ignore', 'inherit', 'inherit'] })
  const orphans = join(store.path('staging'), 'orphan.*/d/noise')
  await until(() => globSync(orphans).length > 0, 'the layer is being written')
  const [worker = 0] = workers(daemon.pid)
  assert.ok(worker > 0)
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
  await until(() => !existsSync(`/proc/${worker}`), 'the worker has ended')
  const successor = store.open()
  successor.sweep()
  await store.emptied()
  assert.deepEqual([readdirSync(store.path('staging')), readdirSync(store.path('trash'))], [[], []])
  await successor.close()
})
