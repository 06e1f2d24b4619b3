import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { MODES } from './cases.ts'
import { Matrix, type Result } from './matrix.ts'
import { OPERATIONS } from './operations.ts'

/** No further case begins after it: an idle machine tries some thirty by then, a busy one fewer. */
const BUDGET_MS = 100_000

/** However slow the machine is. */
const FEWEST = 8

/** Every run tries the same, so that what fails is what was changed; other seeds look for what is there already. */
const seed = process.env.BERTH_FAULT_SEED ?? '1'

/** The same order for the same seed, whatever else there is. */
function bySeed<T>(things: readonly T[], keyOf: (thing: T) => string): T[] {
  const rank = (thing: T) =>
    createHash('sha256')
      .update(`${seed} ${keyOf(thing)}`)
      .digest('hex')
  return [...things].sort((a, b) => (rank(a) < rank(b) ? -1 : 1))
}

function wereTried(results: readonly Result[]): Result[] {
  return results.filter(({ outcome }) => outcome !== 'not applicable')
}

test('a sample of the matrix of faults', async t => {
  const pairs = OPERATIONS.flatMap(operation => MODES.map(mode => ({ operation, mode })))
  const end = performance.now() + BUDGET_MS
  const results: Result[] = []
  await using matrix = new Matrix()
  for (const { operation, mode } of bySeed(pairs, pair => `${pair.operation.name} ${pair.mode}`)) {
    if (performance.now() > end && wereTried(results).length >= FEWEST) break
    const one = matrix.run(operation, mode, points => bySeed(points, ({ address }) => address).slice(0, 1))
    for await (const result of one) results.push(result)
  }
  const tried = wereTried(results)
  t.diagnostic(`BERTH_FAULT_SEED=${seed}: ${tried.length} cases of some ${pairs.length} kinds`)
  assert.ok(tried.length >= FEWEST)
  const failed = results.filter(({ outcome }) => outcome === 'failed')
  assert.deepEqual(
    failed.map(({ operation, mode, address, reason }) => `${operation}, ${mode}@${address}: ${reason}`),
    [],
    `BERTH_FAULT_SEED=${seed}`,
  )
})
