import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseStrictJson } from './strict-json.ts'

const parse = (text: string) => parseStrictJson(Buffer.from(text))

test('reads every JSON document as JSON.parse does', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value, null, indent)
      assert.deepEqual(parse(text), JSON.parse(text))
    }),
  )
})

test('refuses a member that occurs twice, however it is spelt', () => {
  for (const text of [
    '{"a":1,"a":1}',
    '{"a":1,"\\u0061":2}',
    '[{"x":{"b" : 1, "b"\n:2}}]',
    '{"":1,"":2}',
    '{"a\\"b":1,"c":[{"a\\"b":3}],"a\\"b":2}',
  ]) {
    assert.throws(() => parse(text), /occurs twice/, text)
  }
  assert.deepEqual(parse('{"a":{"a":"a"},"b":["a","a"]}'), { a: { a: 'a' }, b: ['a', 'a'] })
})

test('refuses what is too deep, not UTF-8 or not JSON', () => {
  assert.throws(() => parse('['.repeat(65) + ']'.repeat(65)), /deeper than 64/)
  assert.throws(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22])), /not valid UTF-8/)
  assert.throws(() => parse('\ufeff{}'), SyntaxError)
  assert.throws(() => parse('{"a":1'), SyntaxError)
})
