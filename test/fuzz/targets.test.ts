import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeFinding, fuzz, loadTarget, readCorpus, targetNames } from './driver.ts'

// The same inputs every time: new ones are looked for by `npm run fuzz`.
const SEED = 1

for (const name of targetNames()) {
  test(`fuzz target ${name}`, async () => {
    const target = await loadTarget(name)
    const { runs, finding } = await fuzz(target, readCorpus(name), { seed: SEED, runs: target.runs })
    if (finding !== undefined) assert.fail(`input ${runs}, seed ${SEED}: ${describeFinding(finding)}`)
  })
}
