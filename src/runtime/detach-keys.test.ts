import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DetachKeys } from './detach-keys.ts'

/** What goes on of chunks that a user types, and whether it ends with the keys. */
function typed(...chunks: string[]): [string, boolean] {
  const keys = new DetachKeys()
  let passed = ''
  for (const chunk of chunks) {
    const { bytes, detached } = keys.read(Buffer.from(chunk))
    passed += bytes.toString()
    if (detached) return [passed, true]
  }
  return [passed, false]
}

test('the two keys detach, wherever the chunks are cut; what follows is dropped', () => {
  assert.deepEqual(typed('ls\n\x10\x11more'), ['ls\n', true])
  assert.deepEqual(typed('ls\n\x10', '\x11more'), ['ls\n', true])
  assert.deepEqual(typed('\x10', '', '\x11'), ['', true])
  assert.deepEqual(typed('\x10\x10\x11'), ['\x10', true])
})

test('one alone, or the two the other way round, reach the container', () => {
  assert.deepEqual(typed('\x10', '\x10', 'a'), ['\x10\x10a', false])
  assert.deepEqual(typed('\x11\x10', 'x\x11'), ['\x11\x10x\x11', false])
  assert.deepEqual(typed('a\x10'), ['a', false])
})
