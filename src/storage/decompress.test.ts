import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { decompress, sniff } from './decompress.ts'

async function* pieces(data: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
}

async function decompressed(data: Buffer, size = data.length): Promise<Buffer> {
  const chunks: Buffer[] = []
  await decompress(await sniff(pieces(data, Math.max(1, size))), chunk => chunks.push(chunk))
  return Buffer.concat(chunks)
}

function skippable(content: Buffer, low = 0x50): Buffer {
  const header = Buffer.from([low, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])
  header.writeUInt32LE(content.length, 4)
  return Buffer.concat([header, content])
}

function zstd(data: Buffer | string, checksum = false): Buffer {
  return zstdCompressSync(data, { params: { [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0 } })
}

// Not a multiple of anything, and more than one zstd block of 128 KiB.
const LONG = Buffer.from(Array.from({ length: 300_001 }, (_, i) => (i * i) >> 7))

test('gzip, zstd and plain bytes, told by their beginning', async () => {
  for (const data of [LONG, Buffer.alloc(0), Buffer.from('x')]) {
    assert.deepEqual(await decompressed(gzipSync(data)), data)
    assert.deepEqual(await decompressed(zstd(data)), data)
    assert.deepEqual(await decompressed(zstd(data, true)), data)
    assert.deepEqual(await decompressed(data), data)
  }
})

test('members, frames and skippable frames one after the other, in pieces of any size', async () => {
  const gzip = Buffer.concat([gzipSync('hello '), gzipSync(''), gzipSync('world'), Buffer.alloc(100)])
  const frames = Buffer.concat([
    skippable(Buffer.from('\x28\xb5\x2f\xfd', 'latin1')),
    zstd('hello '),
    skippable(Buffer.alloc(0), 0x5f),
    zstd('', true),
    zstd('wo', true),
    zstd('rld'),
    skippable(Buffer.alloc(30)),
  ])
  for (let size = 1; size <= frames.length; size++) {
    assert.equal((await decompressed(gzip, size)).toString(), 'hello world', `gzip in pieces of ${size}`)
    assert.equal((await decompressed(frames, size)).toString(), 'hello world', `zstd in pieces of ${size}`)
  }
})

test('any frames in any pieces', async () => {
  const data = fc.uint8Array({ maxLength: 500 }).map(array => Buffer.from(array))
  const frame = fc.record({ data, kind: fc.constantFrom('plain', 'checksum', 'skippable') })
  await fc.assert(
    fc.asyncProperty(
      fc.array(frame, { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 700 }),
      async (all, size) => {
        const encoded = all.map(({ data, kind }) =>
          kind === 'skippable' ? skippable(data) : zstd(data, kind === 'checksum'),
        )
        encoded.push(zstd(''))
        const wanted = all.filter(({ kind }) => kind !== 'skippable').map(({ data }) => data)
        assert.deepEqual(await decompressed(Buffer.concat(encoded), size), Buffer.concat(wanted))
      },
    ),
    { numRuns: 150 },
  )
})

test('big blocks of every kind', async () => {
  const noise = Buffer.from(
    Array.from({ length: 400_000 }, (_, i) => Math.imul(i ^ (i >>> 3), 0x9e3779b1) >>> 24),
  )
  for (const data of [noise, Buffer.alloc(400_000), LONG]) {
    assert.deepEqual(
      await decompressed(Buffer.concat([zstd(data), zstd(data, true)]), 65_536),
      Buffer.concat([data, data]),
    )
  }
})

test('the source is read to its end after the data has ended', async () => {
  let seen = 0
  const data = Buffer.concat([gzipSync('x'), Buffer.alloc(2_000_000)])
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const piece of pieces(data, 65_536)) {
      seen += piece.length
      yield piece
    }
  }
  await decompress(await sniff(counted()), () => undefined)
  assert.equal(seen, data.length)
})

test('damaged data', async () => {
  const gzip = gzipSync(LONG)
  const frame = zstd(LONG, true)
  const damaged = Buffer.from(frame)
  damaged.writeUInt8(damaged.at(-1)! ^ 1, damaged.length - 1)
  const cases: Array<[name: string, data: Buffer, message: RegExp]> = [
    ['cut gzip', gzip.subarray(0, -5), /^gzip: unexpected end of file$/],
    ['gzip and garbage', Buffer.concat([gzip, Buffer.from('garbage')]), /^gzip: incorrect header check$/],
    [
      'gzip with a wrong sum',
      Buffer.concat([gzip.subarray(0, -8), Buffer.alloc(8, 1)]),
      /^gzip: incorrect data check$/,
    ],
    ['cut zstd', frame.subarray(0, -5), /^zstd: unexpected end of file$/],
    [
      'zstd cut in a magic number',
      Buffer.concat([frame, frame.subarray(0, 2)]),
      /^zstd: unexpected end of file$/,
    ],
    ['cut skippable frame', skippable(Buffer.alloc(9)).subarray(0, -1), /^zstd: unexpected end of file$/],
    ['zstd and garbage', Buffer.concat([frame, Buffer.from('garbage')]), /^zstd: expected a frame/],
    ['zstd with a wrong sum', damaged, /^zstd: /],
  ]
  for (const [name, data, message] of cases) {
    for (const size of [data.length, 1000]) {
      await assert.rejects(decompressed(data, size), { code: 'invalid', message }, name)
    }
  }
})

test('what the source or the consumer throws comes out as it is', async () => {
  const mine = new Error('mine')
  async function* broken(): AsyncGenerator<Buffer> {
    yield gzipSync(LONG).subarray(0, 100)
    throw mine
  }
  await assert.rejects(
    sniff(broken()).then(blob => decompress(blob, () => undefined)),
    mine,
  )
  for (const data of [gzipSync(LONG), zstd(LONG), LONG]) {
    const consumer = () => {
      throw mine
    }
    await assert.rejects(decompress(await sniff(pieces(data, 1000)), consumer), mine)
  }
})
