import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statusJson } from './command-status.ts'

test('what clients print of a failure is bounded', () => {
  const { message } = JSON.parse(statusJson({ failure: new Error(`no ${'x'.repeat(100_000)}`) }))
  assert.equal(message, `no ${'x'.repeat(8192 - 3)}`)
})
