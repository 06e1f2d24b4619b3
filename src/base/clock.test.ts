import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { nowAfter, nowNs } from './clock.ts'

const HOUR_MS = 3_600_000

/** As if the wall clock had been set by so much. */
function step(ms: number): void {
  mock.restoreAll()
  const real = Date.now
  mock.method(Date, 'now', () => real() + ms)
}

test('a step of the wall clock shows at once, in both directions', () => {
  const before = nowNs()
  step(HOUR_MS)
  const ahead = nowNs()
  assert.ok(ahead - before > 3_599_000_000_000n && ahead - before < 3_700_000_000_000n)
  step(-HOUR_MS)
  const behind = nowNs()
  assert.ok(before - behind > 3_500_000_000_000n && before - behind < 3_601_000_000_000n)
  mock.restoreAll()
  // The wall clock has been read anew since, and tells milliseconds.
  assert.ok(nowNs() > before - 1_000_000n)
})

test('without a step it never goes back, and tells apart what a millisecond does not', () => {
  const times = Array.from({ length: 1000 }, nowNs)
  assert.deepEqual(
    times,
    times.toSorted((a, b) => (a < b ? -1 : 1)),
  )
  assert.ok(new Set(times).size > 100)
})

test('what is made now is newer than what was made before, whatever the clock says', () => {
  const old = nowNs() + 5_000_000_000n
  assert.equal(nowAfter([1n, old, 2n]), old + 1n)
  const now = nowNs()
  const next = nowAfter([])
  assert.ok(next >= now && next < old)
})
