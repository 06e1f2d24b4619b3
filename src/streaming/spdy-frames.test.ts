import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { dataFrame, frame, uint32 } from '../../test/support/spdy-client.ts'
import {
  dataHeader,
  type Frame,
  FrameReader,
  goaway,
  MAX_CONTROL_BYTES,
  ping,
  resetStream,
  SpdyError,
  synReply,
} from './spdy-frames.ts'

/** What a reader makes of the chunks; the parts of a data frame joined again. */
function read(chunks: readonly Buffer[]): Frame[] {
  const reader = new FrameReader()
  const frames: Frame[] = []
  let open: (Frame & { type: 'data' }) | undefined
  for (const chunk of chunks) {
    reader.push(chunk)
    for (let next = reader.next(); next !== undefined; next = reader.next()) {
      if (next.type !== 'data') {
        assert.equal(open, undefined, 'a frame inside of another')
        frames.push(next)
        continue
      }
      open = open === undefined ? next : { ...next, bytes: Buffer.concat([open.bytes, next.bytes]) }
      if (open.last || open.bytes.length >= DATA_BYTES) {
        frames.push(open)
        open = undefined
      }
    }
  }
  assert.equal(open, undefined)
  return frames
}

/** So that the end of a data frame can be told without its header. */
const DATA_BYTES = 40

const id = fc.integer({ min: 1, max: 0x7fff_ffff })
const bytes = fc.uint8Array({ maxLength: 60 }).map(array => Buffer.from(array))

type Sample = readonly [wire: Buffer, read: Frame]

const samples: fc.Arbitrary<Sample> = fc.oneof(
  fc.tuple(id, fc.uint8Array({ maxLength: DATA_BYTES - 1 })).map(([id, array]): Sample => {
    const bytes = Buffer.from(array)
    return [dataFrame(id, bytes, true), { type: 'data', id, bytes, last: true }]
  }),
  fc.tuple(id, fc.uint8Array({ minLength: DATA_BYTES, maxLength: DATA_BYTES })).map(([id, array]): Sample => {
    const bytes = Buffer.from(array)
    return [dataFrame(id, bytes), { type: 'data', id, bytes, last: false }]
  }),
  fc.tuple(id, bytes, fc.integer({ min: 0, max: 3 })).map(([id, headers, flags]): Sample => {
    const wire = frame(1, Buffer.concat([uint32(id, 0), Buffer.alloc(2), headers]), flags)
    const [last, unidirectional] = [(flags & 1) !== 0, (flags & 2) !== 0]
    return [wire, { type: 'syn-stream', id, last, unidirectional, headers }]
  }),
  fc.tuple(id, bytes, fc.constantFrom(2, 8), fc.boolean()).map(([id, headers, type, last]): Sample => {
    const wire = frame(type, Buffer.concat([uint32(id), headers]), last ? 1 : 0)
    return [wire, { type: 'headers', id, last, headers }]
  }),
  fc
    .tuple(id, fc.integer({ min: 1, max: 11 }))
    .map(([id, status]): Sample => [frame(3, uint32(id, status)), { type: 'reset', id, status }]),
  id.map((id): Sample => [frame(6, uint32(id)), { type: 'ping', id }]),
  fc.constant<Sample>([frame(7, uint32(5, 0)), { type: 'goaway' }]),
  fc.constant<Sample>([frame(9, uint32(5, 1)), { type: 'ignored' }]),
  fc
    .integer({ min: 0, max: 4 })
    .map(
      (count): Sample => [
        frame(4, Buffer.concat([uint32(count), Buffer.alloc(8 * count)])),
        { type: 'ignored' },
      ],
    ),
)

test('frames come out as they went in, wherever the stream is cut', () => {
  const property = fc.property(
    fc.array(samples, { maxLength: 12 }),
    fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 }),
    (sent, sizes) => {
      const wire = Buffer.concat(sent.map(([wire]) => wire))
      const chunks: Buffer[] = []
      for (let at = 0, turn = 0; at < wire.length; turn++) {
        const size = sizes[turn % sizes.length]!
        chunks.push(wire.subarray(at, at + size))
        at += size
      }
      assert.deepEqual(
        read(chunks),
        sent.map(([, frame]) => frame),
      )
    },
  )
  fc.assert(property, { numRuns: 300 })
})

test('one byte at a time', () => {
  const sent = fc.sample(samples, { numRuns: 30, seed: 1 })
  const wire = Buffer.concat(sent.map(([wire]) => wire))
  assert.deepEqual(
    read(Array.from(wire, (_, at) => wire.subarray(at, at + 1))),
    sent.map(([, frame]) => frame),
  )
})

test('data is handed on as it arrives, in the very memory it arrived in', () => {
  const reader = new FrameReader()
  const wire = dataFrame(1, Buffer.alloc(1 << 20, 'x'), true)
  const first = wire.subarray(0, 1000)
  reader.push(first)
  const part = reader.next()
  assert.ok(part?.type === 'data' && !part.last && part.bytes.length === 992)
  assert.equal(part.bytes.buffer, first.buffer)
  assert.equal(reader.next(), undefined)
})

test('what is written reads back', () => {
  const block = Buffer.from('headers')
  assert.deepEqual(
    read([
      Buffer.concat([
        synReply(1, block),
        dataHeader(3, 2, true),
        Buffer.from('ab'),
        resetStream(5, 3),
        ping(2),
        goaway(7, 0),
      ]),
    ]),
    [
      { type: 'headers', id: 1, last: false, headers: block },
      { type: 'data', id: 3, bytes: Buffer.from('ab'), last: true },
      { type: 'reset', id: 5, status: 3 },
      { type: 'ping', id: 2 },
      { type: 'goaway' },
    ],
  )
})

test('malformed control frames are errors of the connection', () => {
  const wrong: ReadonlyArray<readonly [RegExp, Buffer]> = [
    [/version 2/, frame(6, uint32(1), 0, 2)],
    [/unknown type 5/, frame(5, uint32(1))],
    [/unknown type 10/, frame(10, uint32(1))],
    [/SYN_STREAM/, frame(1, uint32(1, 0))],
    [/SYN_STREAM/, frame(1, Buffer.alloc(10), 4)],
    [/header frame/, frame(8, Buffer.alloc(3))],
    [/header frame/, frame(2, uint32(1), 2)],
    [/RST_STREAM/, frame(3, uint32(1))],
    [/RST_STREAM/, frame(3, uint32(1, 0))],
    [/RST_STREAM/, frame(3, uint32(1, 5), 1)],
    [/SETTINGS/, frame(4, Buffer.alloc(3))],
    [/SETTINGS/, frame(4, uint32(2, 0, 0))],
    [/PING/, frame(6, uint32(0))],
    [/PING/, frame(6, uint32(1, 2))],
    [/PING/, frame(6, uint32(1), 1)],
    [/GOAWAY/, frame(7, uint32(1))],
    [/WINDOW_UPDATE/, frame(9, uint32(1))],
    [/65537 bytes, at most 65536/, frame(1, Buffer.alloc(MAX_CONTROL_BYTES + 1)).subarray(0, 8)],
  ]
  for (const [message, wire] of wrong) {
    assert.throws(
      () => read([wire]),
      error => error instanceof SpdyError && message.test(error.message),
      wire.toString('hex', 0, 20),
    )
  }
})
