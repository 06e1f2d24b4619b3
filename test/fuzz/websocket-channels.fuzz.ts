import assert from 'node:assert/strict'
import { parseMessage } from '../../src/streaming/websocket-channels.ts'
import { type FuzzTarget, mutated } from './target.ts'

/** The first byte says which sub-protocol and what kind of message; the rest is the message. */
export const target: FuzzTarget = {
  inputs: mutated([
    Buffer.from('\x00\x00input'),
    Buffer.from('\x01\x04{"Width":80,"Height":24}'),
    Buffer.from([3, 255, 0]),
    Buffer.from('\x060aW5wdXQ='),
  ]),
  run: input => {
    const [flags = 0] = input
    const base64 = (flags & 2) !== 0
    const message = input.subarray(1)
    const read = parseMessage(message, (flags & 1) === 0, { base64, halfClose: (flags & 4) !== 0 })
    if (read.type === 'data') {
      assert.ok(read.channel >= 0 && read.channel <= (base64 ? 9 : 255))
      assert.ok(read.bytes.length < message.length)
    } else if (read.type === 'end') assert.ok(read.channel >= 0 && read.channel <= 255)
  },
  runs: 5000,
}
