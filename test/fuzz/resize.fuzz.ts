import assert from 'node:assert/strict'
import { ResizeReader } from '../../src/streaming/resize.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seed = '{"Width":80,"Height":24}{"Width":81,"Height":25}\n{"Height":65535,"Width":1}'

export const target: FuzzTarget = {
  inputs: mutated([seed, `${seed}${seed}`], ['{', '}', '"Width":', '1e99', '0x10', 'null', '[]']),
  run: input => {
    const whole = new ResizeReader().push(input)
    const reader = new ResizeReader()
    const pieces = Array.from(input, (_, at) => reader.push(input.subarray(at, at + 1))).flat()
    assert.deepEqual(pieces, whole, 'what is read does not depend on where it is cut')
    for (const { width, height } of whole) {
      assert.ok(Number.isInteger(width) && width >= 1 && width <= 0xffff)
      assert.ok(Number.isInteger(height) && height >= 1 && height <= 0xffff)
    }
  },
  runs: 3000,
}
