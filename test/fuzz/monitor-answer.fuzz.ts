import assert from 'node:assert/strict'
import { parseAnswer } from '../../src/runtime/conmon.ts'
import { readableError } from '../../src/runtime/text.ts'
import { type FuzzTarget, mutated } from './target.ts'

const log = 'time="2026-01-01T00:00:00Z" level=error msg="runc create failed: \\"/x\\": no such file"'
const seeds = ['{"pid": 4711}', JSON.stringify({ pid: -1, message: `${log}\n${log}` }), log]

/** The monitor's line and the runtime's words in it, which may quote what is in an image. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, ['null', '[]', '"pid":', '1.5', '1e20', 'level=fatal msg="', '\\"', '\u202e', '\r']),
  run(input) {
    const text = input.toString()
    const words = readableError(text)
    assert.ok(words !== '' && words.length <= 8193)
    assert.doesNotMatch(words, /[\x00-\x1f\x7f-\x9f\u2028-\u202e]/)
    const pid = parseAnswer(text)
    assert.ok(Number.isInteger(pid) && pid > 0)
  },
  runs: 4000,
}
