import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { SpdyConnection } from '../../src/streaming/spdy-connection.ts'
import { FrameReader } from '../../src/streaming/spdy-frames.ts'
import { dataFrame, frame, headerBlock, uint32 } from '../support/spdy-client.ts'
import { type FuzzTarget, mutated } from './target.ts'

/** A header block as one stored deflate block, so that a changed byte changes a header and not all of zlib's stream. */
function stored(headers: Readonly<Record<string, string>>, first = false): Buffer {
  const block = headerBlock(Object.entries(headers))
  const header = Buffer.alloc(5)
  header.writeUInt16LE(block.length, 1)
  header.writeUInt16LE(~block.length & 0xffff, 3)
  const prefix = Buffer.from(first ? '78bbe3c6a7c2' : '', 'hex')
  return Buffer.concat([prefix, header, block, Buffer.from('000000ffff', 'hex')])
}

function synStream(id: number, block: Buffer): Buffer {
  return frame(1, Buffer.concat([uint32(id, 0), Buffer.alloc(2), block]))
}

const session = Buffer.concat([
  synStream(1, stored({ streamtype: 'error' }, true)),
  synStream(3, stored({ streamtype: 'stdin' })),
  dataFrame(3, Buffer.from('some input')),
  frame(6, uint32(1)),
  synStream(5, stored({ streamtype: 'stdout', port: '80', requestid: '0' })),
  dataFrame(3, Buffer.alloc(300, 'x'), true),
  frame(4, uint32(1, 4, 65_536)),
  frame(8, Buffer.concat([uint32(5), stored({})])),
  frame(9, uint32(5, 1000)),
  frame(3, uint32(5, 5)),
  frame(7, uint32(0, 0)),
])

const tokens = [
  frame(1, Buffer.alloc(10)),
  frame(6, uint32(3)),
  frame(3, uint32(1, 5)),
  dataFrame(1, Buffer.alloc(0), true),
  dataFrame(1, Buffer.alloc(100)).subarray(0, 8),
  uint32(0x7fff_ffff),
  uint32(0x8003_0001),
]

/** A client sends the input, cut in pieces as its first byte says, and leaves; every stream is an echo. */
async function converse(input: Buffer): Promise<Buffer> {
  const [client, transport] = duplexPair()
  const sent = buffer(client)
  let lost = 0
  const connection = new SpdyConnection(transport, Buffer.alloc(0), {
    onStream: opening => {
      assert.ok(opening.id > 0 && opening.id % 2 === 1)
      if (opening.headers.get('streamtype') === undefined) opening.refuse()
      else {
        const { input, output } = opening.accept()
        input.pipe(output)
      }
    },
    onLost: why => {
      assert.ok(why.message.length < 1000)
      lost++
    },
  })
  const piece = 1 + (input[0] ?? 0)
  for (let at = 1; at < input.length; at += piece) client.write(input.subarray(at, at + piece))
  client.end()
  await connection.closed
  assert.equal(lost, 1, 'a connection is lost once')
  // A side that was dropped gives the other no end.
  client.push(null)
  return await sent
}

/** What Go's clients insist on. */
function check(wire: Buffer): void {
  const reader = new FrameReader()
  const replied = new Set<number>()
  const ended = new Set<number>()
  reader.push(wire)
  let last = ''
  for (let next = reader.next(); next !== undefined; next = reader.next()) {
    assert.notEqual(last, 'goaway', 'GOAWAY is the last frame')
    last = next.type
    if (next.type === 'headers') {
      assert.ok(!replied.has(next.id), 'one reply for each stream')
      replied.add(next.id)
    } else if (next.type === 'data') {
      assert.ok(replied.has(next.id) && !ended.has(next.id), 'data between reply and end')
      if (next.last) ended.add(next.id)
    }
  }
}

export const target: FuzzTarget = {
  inputs: mutated(
    [
      Buffer.concat([Buffer.from([255]), session]),
      Buffer.concat([Buffer.from([6]), session]),
      Buffer.concat([Buffer.from([40]), session, session]),
    ],
    tokens,
  ),
  run: async input => check(await converse(input)),
  runs: 1000,
}
