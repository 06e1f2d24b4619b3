import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readableError } from './text.ts'

test("the message of a runtime's log lines, unescaped, without what is below error", () => {
  const output = `time="2024-01-01" level=warning msg="never mind"
time="2024-01-01" level=error msg="runc create failed: exec: \\"x\\": not found"
`
  assert.equal(readableError(output), 'runc create failed: exec: "x": not found')
})

test('other text on one line, without anything a terminal obeys, cut off', () => {
  assert.equal(readableError('one\n\n  two\n'), 'one; two')
  assert.equal(readableError('a\x1b[2Jb\x9b\u202e'), 'a?[2Jb??')
  assert.equal(readableError(' \n'), 'no reason given')
  assert.equal(readableError('x'.repeat(100_000)).length, 8193)
})

test('output made to keep the search busy is not searched to its end', () => {
  assert.equal(readableError(' '.repeat(2 ** 22)), 'no reason given')
  assert.match(readableError('level=error msg="'.repeat(2 ** 18)), /^level=error/)
})
