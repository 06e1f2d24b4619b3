import assert from 'node:assert/strict'
import { test } from 'node:test'
import { dict } from './dict.ts'
import { sameContent } from './same-content.ts'

test('order of keys, prototypes and absent members do not matter; everything else does', () => {
  const a = {
    labels: dict([
      ['a', '1'],
      ['__proto__', '2'],
    ]),
    unified: dict([['memory.oom.group', '1']]),
    gone: undefined,
  }
  const b = { unified: { 'memory.oom.group': '1' }, labels: JSON.parse('{"__proto__":"2","a":"1"}') }
  assert.ok(sameContent(a, b))
  assert.ok(!sameContent(a, { ...b, labels: { a: '1' } }))
  assert.ok(
    !sameContent(a, {
      ...b,
      labels: dict([
        ['a', '1'],
        ['__proto__', '3'],
      ]),
    }),
  )
  assert.ok(!sameContent([1, 2], [2, 1]))
  assert.ok(sameContent(undefined, undefined))
})
