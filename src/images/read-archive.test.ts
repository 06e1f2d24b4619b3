import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { saying, temporaryDirectory } from '../../test/support/registry-client.ts'
import { digestFromHex } from '../base/digest.ts'
import type { SpooledFile } from '../storage/archive-protocol.ts'
import { ArchiveFiles, imagesOf } from './read-archive.ts'

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

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const platform = { os: 'linux', architecture: 'amd64' }

/** Index and manifests of an archive, written as they would be. */
function archive(t: TestContext) {
  const directory = temporaryDirectory(t)
  const spooled: SpooledFile[] = []
  const add = (name: string, document: unknown) => {
    const bytes = Buffer.from(JSON.stringify(document))
    const file = join(directory, String(spooled.length))
    writeFileSync(file, bytes)
    const digest = digestFromHex(createHash('sha256').update(bytes).digest('hex'))
    spooled.push({ name, file, size: bytes.length, digest })
    return { digest, size: bytes.length }
  }
  const blob = (mediaType: string, document: unknown) => ({ mediaType, ...add('blob', document) })
  const config = blob('application/vnd.oci.image.config.v1+json', {})
  const image = blob(OCI_MANIFEST, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] })
  const indexOf = (manifests: readonly object[]) => ({ schemaVersion: 2, mediaType: OCI_INDEX, manifests })
  const read = () => imagesOf(new ArchiveFiles(spooled), platform)
  return { spooled, add, blob, image, indexOf, read }
}

test('an index in an index in the list of contents is read, a deeper one is not', t => {
  const { add, blob, image, indexOf, read, spooled } = archive(t)
  const entry = (nested: object) => ({ ...nested, platform })
  let nested: object = image
  for (let depth = 1; depth <= 2; depth++) nested = blob(OCI_INDEX, indexOf([entry(nested)]))
  add('index.json', indexOf([nested]))
  assert.equal(read()[0]?.manifestDigest, image.digest)
  spooled.pop()
  add('index.json', indexOf([blob(OCI_INDEX, indexOf([entry(nested)]))]))
  assert.throws(read, saying('invalid', /is nested too deeply/))
})

test('an archive has a thousand images at most', t => {
  const { add, image, indexOf, read, spooled } = archive(t)
  add('index.json', indexOf(Array.from({ length: 1000 }, () => image)))
  assert.equal(read().length, 1000)
  spooled.pop()
  add('index.json', indexOf(Array.from({ length: 1001 }, () => image)))
  assert.throws(read, saying('invalid', /manifests: 1001 entries; at most 1000 are allowed/))
  spooled.pop()
  const saved = (length: number) => Array.from({ length }, () => ({ Config: 'blob', Layers: [] }))
  add('manifest.json', saved(1000))
  assert.equal(read().length, 1000)
  spooled.pop()
  add('manifest.json', saved(1001))
  assert.throws(read, saying('invalid', /it has 1001 images; at most 1000 are read/))
})

test('links to a layer are followed, not without end', t => {
  const { spooled } = archive(t)
  const [target] = spooled
  for (let link = 1; link <= 5; link++)
    spooled.push({ name: `link ${link}`, target: link === 1 ? target!.name : `link ${link - 1}` })
  spooled.push({ name: 'round', target: 'round' })
  const files = new ArchiveFiles(spooled)
  assert.ok(files.named('link 4') !== undefined)
  assert.equal(files.named('link 5'), undefined)
  assert.equal(files.named('round'), undefined)
})
