import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { MODES } from './cases.ts'
import { Matrix, type Result } from './matrix.ts'
import { OPERATIONS } from './operations.ts'

/** No further case begins after it: an idle machine tries some sixty by then, a busy one fewer. */
const BUDGET_MS = 100_000

const seed = process.env.BERTH_FAULT_SEED ?? String(Math.floor(Math.random() * 2 ** 32))

/** The same order for the same seed, whatever else there is. */
function bySeed<T>(things: readonly T[], keyOf: (thing: T) => string): T[] {
  const rank = (thing: T) =>
    createHash('sha256')
      .update(`${seed} ${keyOf(thing)}`)
      .digest('hex')
  return [...things].sort((a, b) => (rank(a) < rank(b) ? -1 : 1))
}

test('a sample of the matrix of faults', async t => {
  const pairs = OPERATIONS.flatMap(operation => MODES.map(mode => ({ operation, mode })))
  const end = performance.now() + BUDGET_MS
  const results: Result[] = []
  await using matrix = new Matrix()
  for (const { operation, mode } of bySeed(pairs, pair => `${pair.operation.name} ${pair.mode}`)) {
    if (performance.now() > end) break
    const one = matrix.run(operation, mode, points => bySeed(points, ({ address }) => address).slice(0, 1))
    for await (const result of one) results.push(result)
  }
  const tried = results.filter(({ outcome }) => outcome !== 'not applicable')
  t.diagnostic(`BERTH_FAULT_SEED=${seed}: ${tried.length} cases of some ${pairs.length} kinds`)
  assert.ok(tried.length > 0)
  const failed = results.filter(({ outcome }) => outcome === 'failed')
  assert.deepEqual(
    failed.map(({ operation, mode, address, reason }) => `${operation}, ${mode}@${address}: ${reason}`),
    [],
    `BERTH_FAULT_SEED=${seed}`,
  )
})
