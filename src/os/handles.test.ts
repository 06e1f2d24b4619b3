import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { checkPackets, descriptorOf, unreadIn, wrapDescriptor } from './handles.ts'
import { pipe } from './syscalls.ts'

test('packets keep their borders on this machine', async () => {
  assert.equal(await checkPackets(), true)
})

test('what waits in a pipe is counted, and a closed stream has no descriptor', async () => {
  const [read, write] = pipe()
  const reader = wrapDescriptor(read, 'read')
  assert.equal(descriptorOf(reader), read)
  assert.equal(unreadIn(reader), 0)
  writeSync(write, 'four')
  assert.equal(unreadIn(reader), 4)
  assert.deepEqual(await once(reader, 'data'), [Buffer.from('four')])
  assert.equal(unreadIn(reader), 0)
  closeSync(write)
  reader.destroy()
  assert.equal(descriptorOf(reader), undefined)
})
