import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestFromHex } from '../base/digest.ts'
import { LayerLeases } from './layer-leases.ts'

const [A, B] = ['aa', 'bb'].map(text => digestFromHex(text.repeat(32))) as [never, never]

test('a layer is covered until everybody has let go, once each', () => {
  const leases = new LayerLeases()
  const first = leases.hold([A, B])
  const second = leases.hold([A])
  first()
  first()
  assert.deepEqual([leases.covers(A), leases.covers(B)], [true, false])
  second()
  assert.equal(leases.covers(A), false)
})

test('a layer is kept for a while, or until it is no longer wanted', t => {
  let now = 1000
  t.mock.method(performance, 'now', () => now)
  const leases = new LayerLeases()
  leases.keep([A, B], 500)
  leases.unkeep([B])
  assert.deepEqual([leases.covers(A), leases.covers(B)], [true, false])
  now = 1499
  leases.keep([A], 500)
  now = 1998
  assert.equal(leases.covers(A), true)
  now = 1999
  assert.equal(leases.covers(A), false)
})
