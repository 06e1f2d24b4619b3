import assert from 'node:assert/strict'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { saying, temporaryDirectory } from '../../test/support/registry-client.ts'
import { digestFromHex } from '../base/digest.ts'
import { ArchiveFiles } from './read-archive.ts'

test('the documents of an archive are read once each, and bounded in all', t => {
  const directory = temporaryDirectory(t)
  const size = 4 * 1024 * 1024
  const spooled = Array.from({ length: 33 }, (_, number) => {
    const file = join(directory, String(number))
    writeFileSync(file, '')
    truncateSync(file, size)
    return { name: `blob ${number}`, file, size, digest: digestFromHex(String(number).padStart(64, '0')) }
  })
  const files = new ArchiveFiles(spooled)
  for (let again = 0; again < 100; again++) assert.equal(files.read(spooled[0]!), files.read(spooled[0]!))
  for (const each of spooled.slice(1, 32)) assert.equal(files.read(each).length, size)
  assert.throws(
    () => files.read(spooled[32]!),
    saying('invalid', /manifests and configurations have more than/),
  )
})
