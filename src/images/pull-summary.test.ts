import assert from 'node:assert/strict'
import { test } from 'node:test'
import { summarize } from './pull-summary.ts'

const report = { received: 100, resumed: 0, endpoint: 'a', waitedMs: 0, downloadedAt: 0, unpackedAt: 0 }

test('the steps of a pull are its whole time', () => {
  const reports = [
    { ...report, downloadedAt: 50, unpackedAt: 70 },
    { ...report, resumed: 7, endpoint: 'b', downloadedAt: 60, unpackedAt: 61 },
  ]
  assert.deepEqual(summarize({ startedAt: 10, resolvedAt: 20, endedAt: 100, reports }), {
    downloaded: 200,
    resumed: 7,
    endpoint: 'a, b',
    resolveMs: 10,
    downloadMs: 40,
    unpackMs: 10,
    commitMs: 30,
    ms: 90,
  })
  const { downloadMs, unpackMs, commitMs, endpoint } = summarize({
    startedAt: 0,
    resolvedAt: 5,
    endedAt: 6,
    reports: [],
  })
  assert.deepEqual([downloadMs, unpackMs, commitMs, endpoint], [0, 0, 1, ''])
})
