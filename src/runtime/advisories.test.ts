import assert from 'node:assert/strict'
import { test } from 'node:test'
import { knownWeakness } from './advisories.ts'

test('old runc versions are warned about, fixed ones and other runtimes are not', () => {
  for (const version of ['runc 1.1.5+ds1', 'runc 1.3.5', 'runc 1.4.2', 'runc 1.0.0-rc93']) {
    assert.match(knownWeakness(version) ?? '', /older than 1\.3\.6/)
  }
  for (const version of ['runc 1.3.6', 'runc 1.4.3', 'runc 1.5.0', 'runc 2.0.0', 'crun 1.8.1', '']) {
    assert.equal(knownWeakness(version), undefined)
  }
})
