import assert from 'node:assert/strict'
import { readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { recordingLog } from '../../test/support/image-host.ts'
import { temporaryDirectory } from '../../test/support/registry-client.ts'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { PartialBlobs } from './partial-blobs.ts'

const DIGEST: Digest = digestFromHex('a'.repeat(64))

function setUp(t: TestContext, options: { afterMs?: number; ttlMs?: number } = {}) {
  const directory = join(temporaryDirectory(t), 'partial')
  const blobs = new PartialBlobs({
    directory,
    afterMs: 100,
    ttlMs: 60_000,
    log: recordingLog([]),
    ...options,
  })
  t.after(() => blobs.close())
  return { directory, blobs }
}

async function readAll(chunks: AsyncIterable<Buffer>): Promise<string> {
  let text = ''
  for await (const chunk of chunks) text += chunk.toString()
  return text
}

test('bytes are kept from when the network was waited for, and gone on with', async t => {
  const { directory, blobs } = setUp(t)
  const first = blobs.open(DIGEST)!
  assert.equal(blobs.open(DIGEST), undefined) // one at a time
  await first.write(0, Buffer.from('quick'), 99)
  assert.deepEqual(readdirSync(directory), [])
  await first.write(5, Buffer.from('slow'), 100)
  await first.write(9, Buffer.from('er'), 120)
  await first.keep()
  assert.deepEqual(readdirSync(directory), [`${'a'.repeat(64)}.5`])
  assert.equal(blobs.usage(), 6)

  const second = blobs.open(DIGEST)!
  assert.deepEqual([second.start, second.end], [5, 11])
  assert.equal(await readAll(second.read(5)), 'slower')
  assert.equal(await readAll(second.read(9)), 'er')
  // What is known already, in part known, and out of order.
  await second.write(0, Buffer.from('quick'), 0)
  await second.write(9, Buffer.from('er!'), 0)
  await second.write(20, Buffer.from('far'), 0)
  assert.equal(await readAll(second.read(5)), 'slower!')
  await second.drop()
  assert.deepEqual(readdirSync(directory), [])
  await second.write(12, Buffer.from('late'), 500)
  assert.deepEqual(readdirSync(directory), [])
})

test('a sweep takes what is old or not ours, and leaves what is in use', async t => {
  const { directory, blobs } = setUp(t, { afterMs: 0 })
  const open = blobs.open(DIGEST)!
  await open.write(0, Buffer.from('in use'), 0)
  const name = (digit: string) => join(directory, `${digit.repeat(64)}.0`)
  for (const file of [name('b'), name('c'), join(directory, 'stranger')]) writeFileSync(file, 'x')
  for (const file of [name('a'), name('b')]) utimesSync(file, 1, 1)
  blobs.sweep()
  assert.deepEqual(readdirSync(directory).sort(), [`${'a'.repeat(64)}.0`, `${'c'.repeat(64)}.0`])
  await open.keep()
})

test('where nothing can be kept, nothing fails', async t => {
  const { directory, blobs } = setUp(t, { afterMs: 0 })
  const open = blobs.open(DIGEST)!
  rmSync(directory, { recursive: true })
  await open.write(0, Buffer.from('lost'), 0)
  await open.write(4, Buffer.from('lost'), 0)
  await open.keep()
  assert.equal(blobs.open(DIGEST), undefined)
  assert.equal(setUp(t, { ttlMs: 0 }).blobs.open(DIGEST), undefined)
})
