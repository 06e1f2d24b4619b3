import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { constants, crc32, createDeflate, createInflate } from 'node:zlib'
import fc from 'fast-check'
import { headerBlock, uint32 } from '../../test/support/spdy-client.ts'
import { SPDY_DICTIONARY } from './spdy-dictionary.ts'
import { SpdyError } from './spdy-frames.ts'
import { emptyBlock, HeaderInflater, MAX_BLOCK_BYTES, parseHeaders } from './spdy-headers.ts'

type Fields = ReadonlyArray<readonly [string, string]>

/** A client's direction: all blocks in one zlib stream. */
class Compressor {
  readonly #deflate = createDeflate({ dictionary: SPDY_DICTIONARY, level: 9 })

  async block(bytes: Buffer): Promise<Buffer> {
    this.#deflate.write(bytes)
    await new Promise<void>(resolve => this.#deflate.flush(constants.Z_SYNC_FLUSH, resolve))
    const parts: Buffer[] = []
    for (let part = this.#deflate.read(); part !== null; part = this.#deflate.read()) parts.push(part)
    return Buffer.concat(parts)
  }
}

const isSpdyError = (message: RegExp) => (error: unknown) =>
  error instanceof SpdyError && message.test(error.message)

test('the dictionary is the one of the draft', () => {
  let [a, b] = [1, 0]
  for (const byte of SPDY_DICTIONARY) {
    a = (a + byte) % 65521
    b = (b + a) % 65521
  }
  assert.equal(SPDY_DICTIONARY.length, 1423)
  assert.equal((b * 65536 + a).toString(16), 'e3c6a7c2')
})

test('header blocks of one connection, one after the other', async () => {
  const name = fc.string({ minLength: 1, maxLength: 20 }).map(text => text.toLowerCase())
  const fields = fc.uniqueArray(fc.tuple(name, fc.string({ maxLength: 60 })), {
    maxLength: 10,
    selector: ([name]) => name,
  })
  const property = fc.asyncProperty(fc.array(fields, { maxLength: 6 }), async (blocks: Fields[]) => {
    const compressor = new Compressor()
    const inflater = new HeaderInflater()
    for (const fields of blocks) {
      const headers = await inflater.inflate(await compressor.block(headerBlock(fields)))
      assert.deepEqual([...headers], fields)
    }
    inflater.close()
  })
  await fc.assert(property, { numRuns: 50 })
})

test('a block of the greatest size that is taken', async () => {
  const fields = Array.from({ length: 7 }, (_, index) => [`h${index}`, 'x'.repeat(8 * 1024)] as const)
  const headers = await new HeaderInflater().inflate(await new Compressor().block(headerBlock(fields)))
  assert.equal(headers.size, 7)
})

test('what is too much or malformed', () => {
  const field = (length: number): Fields => [['a', 'x'.repeat(length)]]
  assert.equal(parseHeaders(headerBlock(field(8192))).get('a')?.length, 8192)
  assert.throws(() => parseHeaders(headerBlock(field(8193))), isSpdyError(/8193 bytes/))
  const many = Array.from({ length: 101 }, (_, index) => [`h${index}`, ''] as const)
  assert.equal(parseHeaders(headerBlock(many.slice(1))).size, 100)
  assert.throws(() => parseHeaders(headerBlock(many)), isSpdyError(/101 headers/))
  assert.throws(() => parseHeaders(uint32(0xffff_ffff)), isSpdyError(/4294967295 headers/))
  const twice: Fields = [
    ['A', '1'],
    ['a', '2'],
  ]
  assert.throws(() => parseHeaders(headerBlock(twice)), isSpdyError(/twice/))
  assert.throws(() => parseHeaders(headerBlock([['', 'x']])), isSpdyError(/without a name/))
  const whole = headerBlock([['name', 'value']])
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => parseHeaders(whole.subarray(0, length)), isSpdyError(/ends early/))
  }
  assert.throws(() => parseHeaders(Buffer.concat([whole, Buffer.alloc(1)])), isSpdyError(/goes on/))
})

test('a bomb is let off nowhere', async () => {
  const bomb = await new Compressor().block(Buffer.alloc(50 << 20))
  assert.ok(bomb.length < 64 * 1024)
  await assert.rejects(
    new HeaderInflater().inflate(bomb),
    isSpdyError(new RegExp(`more than ${MAX_BLOCK_BYTES}`)),
  )
})

test('what zlib does not take, and another dictionary', async () => {
  await assert.rejects(
    new HeaderInflater().inflate(Buffer.from('not zlib at all')),
    isSpdyError(/header block/),
  )
  const other = createDeflate({ dictionary: Buffer.from('other') })
  other.end(headerBlock([]))
  const [block] = await once(other, 'data')
  await assert.rejects(new HeaderInflater().inflate(block), isSpdyError(/header block/))
})

test('closing it in the middle of a block rejects', async () => {
  const inflater = new HeaderInflater()
  const block = inflater.inflate(await new Compressor().block(headerBlock([])))
  inflater.close()
  await assert.rejects(block, isSpdyError(/closed/))
})

test('our own blocks: what zlib makes of them, delivered as soon as they are there', async () => {
  const inflate = createInflate({ dictionary: SPDY_DICTIONARY, flush: constants.Z_SYNC_FLUSH })
  for (const block of [emptyBlock(true), emptyBlock(false), emptyBlock(false)]) {
    await new Promise<void>(resolve => inflate.write(block, () => resolve()))
    assert.deepEqual([...parseHeaders(inflate.read())], [])
  }
  assert.equal(
    crc32(emptyBlock(true)),
    crc32(Buffer.concat([emptyBlock(true).subarray(0, 6), emptyBlock(false)])),
  )
})
