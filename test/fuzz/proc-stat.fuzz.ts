import assert from 'node:assert/strict'
import fc from 'fast-check'
import { parseStat } from '../../src/os/processes.ts'
import type { FuzzTarget } from './target.ts'

const names = fc.oneof(
  fc.uint8Array({ maxLength: 15 }),
  fc
    .array(fc.constantFrom(...[') R 1 1 1', '(', ')', ' ', '\n', 'Z', '1'].map(word => Buffer.from(word))))
    .map(Buffer.concat),
)

/** A process may call itself what it likes, 15 bytes, also `) Z 1 1 1`: nothing else of the line changes. */
export const target: FuzzTarget = {
  inputs: names.map(name => Buffer.from(name).subarray(0, 15)),
  run(name) {
    const fields = Array.from({ length: 50 }, (_, i) => i + 100)
    const line = Buffer.concat([Buffer.from('4711 ('), name, Buffer.from(`) S ${fields.join(' ')}\n`)])
    const expected = { pid: 4711, state: 'S', parent: 100, session: 102, threads: 116, startTime: '118' }
    assert.deepEqual(parseStat(line.toString()), expected)
  },
  runs: 5000,
}
