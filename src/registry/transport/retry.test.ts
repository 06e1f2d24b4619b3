import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Failure } from './failure.ts'
import { parseRetryAfter, withRetries } from './retry.ts'

const policy = { tries: 3, baseMs: 1, maxMs: 5 }
const signal = new AbortController().signal

test('only "unavailable" is tried again, so often as the policy says', async () => {
  let attempts = 0
  const failing = (kind: 'unavailable' | 'refused') => () => {
    attempts++
    return Promise.reject(new Failure(kind, 'no'))
  }
  await assert.rejects(withRetries(policy, signal, failing('unavailable')), {
    message: 'no (3 tries)',
    kind: 'unavailable',
  })
  assert.equal(attempts, 3)
  attempts = 0
  await assert.rejects(withRetries(policy, signal, failing('refused')), { message: 'no', kind: 'refused' })
  assert.equal(attempts, 1)
  attempts = 0
  assert.equal(
    await withRetries(policy, signal, async () => (++attempts < 3 ? failing('unavailable')() : 'yes')),
    'yes',
  )
})

test('a Retry-After is capped, and a pause ends with the caller', async () => {
  let attempts = 0
  const later = async () => {
    if (attempts++ === 0) throw new Failure('unavailable', 'no', { retryAfterMs: 3_600_000 })
    return 'yes'
  }
  assert.equal(await withRetries(policy, signal, later), 'yes')
  attempts = 0
  const abort = new AbortController()
  const waiting = withRetries({ ...policy, maxMs: 3_600_000 }, abort.signal, later)
  abort.abort(new Error('the caller left'))
  await assert.rejects(waiting, /the caller left/)
})

test('Retry-After as seconds, as a date, or neither', () => {
  assert.equal(parseRetryAfter('7'), 7000)
  assert.equal(parseRetryAfter('Wed, 21 Oct 2015 07:28:00 GMT', Date.UTC(2015, 9, 21, 7, 27, 30)), 30_000)
  assert.equal(parseRetryAfter('Wed, 21 Oct 2015 07:28:00 GMT'), 0)
  assert.equal(parseRetryAfter('soon'), undefined)
  assert.equal(parseRetryAfter(undefined), undefined)
})
