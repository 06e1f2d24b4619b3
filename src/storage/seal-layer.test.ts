import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkSeal } from './seal-layer.ts'

test('a directory that cannot be looked at is damaged, and ends nothing', () => {
  // As EIO and EUCLEAN, which a damaged file system gives.
  assert.match(checkSeal(`/${'x'.repeat(300)}`, undefined)!, /^its directory cannot be read: ENAMETOOLONG/)
  assert.equal(checkSeal('/nonexistent/layer', undefined), 'its directory is missing')
})
