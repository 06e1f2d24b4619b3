import assert from 'node:assert/strict'
import { test } from 'node:test'
import { workerUrl } from './workers.ts'

test('a worker is beside its source, or in the folder of the bundle', () => {
  const source = workerUrl('layer-worker', 'file:///src/storage/unpack.ts')
  assert.equal(source.href, 'file:///src/storage/layer-worker.ts')
  assert.equal(workerUrl('layer-worker', 'file:///dist/main.mjs').href, 'file:///dist/layer-worker.mjs')
})
