import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { batches } from './batches.ts'

test('every item is in one message, in order, and no message is empty or has more than a hundred', () => {
  fc.assert(
    fc.property(fc.array(fc.string(), { maxLength: 350 }), items => {
      const messages = [...batches(items)]
      assert.deepEqual(messages.flat(), items)
      assert.ok(messages.every(message => message.length > 0 && message.length <= 100))
    }),
  )
})

test('large items make shorter messages', () => {
  const items = Array.from({ length: 20 }, () => ({ annotations: { big: 'x'.repeat(2 ** 20) } }))
  assert.deepEqual(
    [...batches(items)].map(message => message.length),
    [4, 4, 4, 4, 4],
  )
})
