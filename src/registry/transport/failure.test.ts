import assert from 'node:assert/strict'
import { test } from 'node:test'
import { foreignText } from './failure.ts'

test('the words of a server are one line of bounded length', () => {
  assert.equal(foreignText(' not\r\n\u001b[31m here\u2028 '), 'not [31m here')
  assert.equal(foreignText('x'.repeat(300)), 'x'.repeat(300))
  assert.equal(foreignText('x'.repeat(301)), `${'x'.repeat(300)}…`)
})
