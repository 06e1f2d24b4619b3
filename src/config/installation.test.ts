import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { installedPath } from './installation.ts'

const root = join(import.meta.dirname, '../..')

test('what ships is found above the sources', () => {
  assert.equal(installedPath('proto/admin.proto'), join(root, 'proto/admin.proto'))
  assert.equal(installedPath('proto', join(root, 'dist')), join(root, 'proto'))
})

test('what does not ship is an incomplete installation', () => {
  assert.throws(() => installedPath('no-such-thing'), /installation is incomplete: no no-such-thing/)
})
