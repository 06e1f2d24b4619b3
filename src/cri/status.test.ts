import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import fc from 'fast-check'
import { BerthError, type ErrorCode } from '../base/errors.ts'
import { codeName, errorFrom, printable, statusOf } from './status.ts'

const CODES: Readonly<Record<ErrorCode, number>> = {
  cancelled: 1,
  unknown: 2,
  invalid: 3,
  deadline: 4,
  'not-found': 5,
  exists: 6,
  exhausted: 8,
  precondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
}

test('every error has its gRPC code, and the client makes the same error of it', () => {
  for (const [code, grpc] of Object.entries(CODES) as Array<[ErrorCode, number]>) {
    const sent = statusOf(new BerthError(code, 'what happened'))
    assert.deepEqual(sent, { code: grpc, details: 'what happened' })
    const wire: ServiceError = Object.assign(new Error(), { ...sent, metadata: new Metadata() })
    const received = errorFrom(wire)
    assert.deepEqual([received.code, received.message], [code, 'what happened'])
  }
})

test('what is no BerthError is a defect', () => {
  assert.deepEqual(statusOf(new TypeError('x is undefined')), { code: 13, details: 'x is undefined' })
  assert.deepEqual(statusOf('thrown text'), { code: 13, details: 'thrown text' })
})

test('a code has the name of the documentation', () => {
  assert.equal(codeName(status.OK), 'OK')
  assert.equal(codeName(status.NOT_FOUND), 'NOT_FOUND')
})

test('control characters are shown as escapes', () => {
  assert.equal(printable('a\x1b[31mb\r\nc\td\x9be'), 'a\\x1b[31mb\\x0d\\nc\\td\\x9be')
})

test('a message of any text is printable and bounded', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 1, max: 20_000 }), (text, times) => {
      const message = printable(text.repeat(Math.ceil(times / (text.length + 1))))
      assert.doesNotMatch(message, /[\x00-\x1f\x7f-\x9f]/)
      assert.ok(Buffer.byteLength(message) <= 8192)
    }),
    { numRuns: 50 },
  )
})

test('an overlong message is cut between two characters', () => {
  assert.equal(printable('€'.repeat(5000)), `${'€'.repeat(2729)}…`)
})
