import assert from 'node:assert/strict'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { decompress, sniff } from '../../src/storage/decompress.ts'
import { type FuzzTarget, mutated } from './target.ts'

// What the seeds expand to is far below it; a mutation that makes a bomb of one is cut off as a layer would be.
const MAX_OUTPUT = 1 << 20

const plain = Buffer.from('content of a layer '.repeat(50))
const gzip = gzipSync(plain)
const zstd = zstdCompressSync(plain)
const skippable = Buffer.concat([Buffer.from('502a4d1804000000', 'hex'), Buffer.from('skip')])
const seeds = [
  plain,
  gzip,
  zstd,
  Buffer.concat([gzip, gzip]),
  Buffer.concat([gzip, Buffer.alloc(100)]),
  Buffer.concat([zstd, skippable, zstd]),
  Buffer.concat([skippable, zstd]),
]

async function* pieces(input: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < input.length; at += size) yield input.subarray(at, at + size)
}

async function read(input: Buffer, size: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  await decompress(await sniff(pieces(input, size)), chunk => {
    length += chunk.length
    if (length > MAX_OUTPUT) throw new Error(`more than ${MAX_OUTPUT} bytes`)
    chunks.push(Buffer.from(chunk))
  })
  return Buffer.concat(chunks)
}

/** Told apart by their first bytes: gzip, zstd, neither. However the bytes arrive, the outcome is one. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, [gzip.subarray(0, 10), zstd.subarray(0, 4), skippable]),
  async run(input) {
    const [whole, inPieces] = await Promise.allSettled([read(input, input.length || 1), read(input, 7)])
    assert.equal(whole.status, inPieces.status, 'pieces make a difference')
    if (whole.status === 'rejected') throw whole.reason
    assert.deepEqual((inPieces as PromiseFulfilledResult<Buffer>).value, whole.value)
  },
  runs: 700,
}
