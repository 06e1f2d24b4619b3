import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { attach, makeKey, signature, writePolicy } from '../../../test/support/cosign.ts'
import { FakeSnapshots } from '../../../test/support/fake-snapshots.ts'
import { ImageHost } from '../../../test/support/image-host.ts'
import { imageOf, indexOf } from '../../../test/support/images.ts'
import { layerOf } from '../../../test/support/layers.ts'
import { TestRegistry } from '../../../test/support/registry.ts'
import { mirrors, saying } from '../../../test/support/registry-client.ts'
import { type Effect, setEffectHook } from '../../base/effects.ts'
import { Policies } from './policies.ts'

const key = makeKey()

const ACCEPT = { type: 'insecureAcceptAnything' }

/** An image service whose policy wants a signature by `key` for what the test's registry has. */
async function start(t: TestContext, identity: object = { type: 'matchRepoDigestOrExact' }, conf = '') {
  const { directory, file, write } = writePolicy('', { 'key.pub': key.publicPem })
  t.after(() => rmSync(directory, { recursive: true }))
  const wanted = [{ type: 'sigstoreSigned', keyPath: join(directory, 'key.pub'), signedIdentity: identity }]
  write({ default: wanted })
  const namespaces = join(directory, 'namespaces')
  mkdirSync(namespaces)
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const policies = new Policies({ file, isOptional: false, directory: namespaces })
  const host = await ImageHost.start(t, snapshots, { policies, conf })
  const image = imageOf([await layerOf([{ name: 'a', content: 'a'.repeat(5000) }])], {
    architecture: 'amd64',
  })
  host.server.push(image, 'app', 'v1')
  const sign = (of: string, name: string) =>
    attach(host.server, 'app', of, [signature(key, of, { identity: name })])
  return { host, image, sign, namespaces }
}

test('an image is pulled when its signature is there, and nothing of it is fetched before', async t => {
  const { host, image, sign } = await start(t)
  const refusal =
    /^SignatureValidationFailed: .*\/app:v1: .*policy\.json: default\[0\] \(sigstoreSigned\): there is no/
  await assert.rejects(host.pull('app:v1'), saying('unknown', refusal))
  assert.equal(host.server.requestsTo(/blobs/).length, 0)
  assert.deepEqual(host.images.list(''), [])
  sign(image.digest, host.name('app:v2'))
  await assert.rejects(
    host.pull('app:v1'),
    saying('unknown', /app:v2", which is not what matchRepoDigestOrExact/),
  )
  sign(image.digest, host.name('app:v1'))
  assert.equal(await host.pull('app:v1'), image.id)
})

test('the policy is for images that are here as well', async t => {
  const { host, image, sign } = await start(t)
  sign(image.digest, host.name('app:v1'))
  await host.pull('app:v1')
  attach(host.server, 'app', image.digest, [])
  await assert.rejects(host.pull('app:v1'), saying('unknown', /^SignatureValidationFailed: /))
})

test('an index that is signed vouches for its images, and an image of it for itself', async t => {
  const { host, image, sign } = await start(t)
  const index = indexOf([{ image, platform: { os: 'linux', architecture: 'amd64' } }])
  host.server.push(index, 'app', 'multi')
  await assert.rejects(host.pull('app:multi'), saying('unknown', /there is no signature of/))
  sign(image.digest, host.name('app:multi'))
  assert.equal(await host.pull('app:multi'), image.id)
  attach(host.server, 'app', image.digest, [])
  sign(index.digest, host.name('app:multi'))
  assert.equal(await host.pull(`app:multi@${index.digest}`), image.id)
})

test('what a mirror has is held to the name that was asked for', async t => {
  const upstream = await TestRegistry.start()
  t.after(() => upstream.close())
  const { host, image, sign } = await start(t)
  // The mirror of registry.test is the server of the test, which has image and signature.
  const conf = mirrors(host.server.address, upstream.address)
  const mirrored = await start(t, { type: 'matchRepoDigestOrExact' }, conf)
  const pull = () => mirrored.host.images.pull('registry.test/app:v1', undefined, AbortSignal.timeout(30_000))
  sign(image.digest, host.name('app:v1'))
  await assert.rejects(
    pull(),
    saying('unknown', /^SignatureValidationFailed: registry\.test\/app:v1: .*which is not/),
  )
  sign(image.digest, 'registry.test/app:v1')
  assert.equal(await pull(), image.id)
  assert.equal(upstream.requests.length, 0)
  // A mirror that has the image but not its signature is not the last word.
  attach(host.server, 'app', image.digest, [])
  host.server.faults({ match: /manifests\/sha256-.*\.sig/, status: 404 })
  attach(upstream, 'app', image.digest, [signature(key, image.digest, { identity: 'registry.test/app:v1' })])
  assert.equal(await pull(), image.id)
})

test('signatures that the registry keeps back, breaks or overdoes refuse', async t => {
  const { host, image, sign } = await start(t)
  sign(image.digest, host.name('app:v1'))
  const tag = /manifests\/sha256-/
  host.server.faults({ match: tag, status: 503 })
  await assert.rejects(
    host.pull('app:v1'),
    saying(
      'unknown',
      /^SignatureValidationFailed: .*cannot be read: RegistryUnavailable: .*503.*\(3 tries\)/,
    ),
  )
  host.server.faults({ match: tag, status: 200, body: '{"schemaVersion":2,"manifests":[]}' })
  await assert.rejects(
    host.pull('app:v1'),
    saying('unknown', /cannot be read: .*expected an OCI image manifest/),
  )
  host.server.faults({ match: /blobs/, corrupt: true })
  await assert.rejects(
    host.pull('app:v1'),
    saying('unknown', /cannot be read: .*the content received has digest/),
  )
  host.server.faults()
  const many = Array.from({ length: 51 }, () =>
    signature(key, image.digest, { identity: host.name('app:v1') }),
  )
  attach(host.server, 'app', image.digest, many)
  await assert.rejects(host.pull('app:v1'), saying('unknown', /51 signatures; at most 50 are looked at/))
})

test('a namespace with a policy of its own shares no pull with others', async t => {
  const { host, image, sign, namespaces } = await start(t)
  sign(image.digest, host.name('app:v1'))
  writeFileSync(join(namespaces, 'closed.json'), '{"default":[{"type":"reject"}]}')
  const pulls = await Promise.allSettled([
    host.pull('app:v1', { namespace: 'open' }),
    host.pull('app:v1', { namespace: 'closed' }),
    host.pull('app:v1'),
  ])
  assert.deepEqual(
    pulls.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  assert.match((pulls[1] as PromiseRejectedResult).reason.message, /closed\.json: default\[0\] \(reject\)/)
  assert.equal(host.server.requestsTo(/manifests\/v1/).length, 2)
})

test('a container is let onto an image by what was accepted at its pull, or by the registry', async t => {
  const { host, image, sign, namespaces } = await start(t)
  const admit = (name: string, namespace = '') => {
    const found = host.images.find(image.id)
    assert.ok(found)
    return host.images.admit(found, name, namespace)
  }
  const v1 = host.name('app:v1')
  sign(image.digest, v1)
  await host.pull('app:v1')
  await host.restart()
  host.server.requests.length = 0
  for (const name of [v1, host.name(`app@${image.digest}`), '', image.id, image.id.slice(7, 20)])
    await admit(name)
  assert.equal(host.server.requests.length, 0)
  // Another name: the registry may know a signature for it.
  host.server.push(image, 'app', 'v2')
  await assert.rejects(
    admit(host.name('app:v2')),
    saying('unknown', /^SignatureValidationFailed: .*app:v1", which is/),
  )
  sign(image.digest, host.name('app:v2'))
  await admit(host.name('app:v2'))
  host.server.requests.length = 0
  await admit(host.name('app:v2'))
  assert.equal(host.server.requests.length, 0)
  writeFileSync(join(namespaces, 'closed.json'), '{"default":[{"type":"reject"}]}')
  await assert.rejects(admit(v1, 'closed'), saying('unknown', /closed\.json: default\[0\] \(reject\)/))
  assert.equal(host.server.requests.length, 0)
  // `sha256:` and the beginning of an id means that id here, and is no name of Docker Hub.
  const hub = { default: [{ type: 'reject' }], transports: { docker: { 'docker.io': [ACCEPT] } } }
  writeFileSync(join(namespaces, 'hub.json'), JSON.stringify(hub))
  assert.equal(host.images.find(image.id.slice(0, 20))?.id, image.id)
  await assert.rejects(
    admit(image.id.slice(0, 20), 'hub'),
    saying('unknown', /hub\.json: default\[0\] \(reject\)/),
  )
  writeFileSync(join(namespaces, 'open.json'), '{"default":[{"type":"insecureAcceptAnything"}]}')
  await admit('nobody.test/knows:this', 'open')
  await host.images.remove(image.id)
  assert.deepEqual(host.db.read.images.signatures(image.id as never), [])
})

test('an image and the signatures that it passed with appear in one transaction', async t => {
  const { host, image, sign } = await start(t)
  t.after(() => setEffectHook(undefined))
  sign(image.digest, host.name('app:v1'))
  const written: string[] = []
  const note = ({ layer, subject }: Effect) => {
    if (layer === 'state') written.push(subject)
  }
  setEffectHook({ sync: note, async: async () => undefined })
  await host.pull('app:v1')
  assert.deepEqual(written, ['layers extracting', 'layers committed', 'image'])
  assert.equal(host.db.read.images.signatures(image.id as never).length, 1)
  written.length = 0
  await host.pull('app:v1')
  assert.deepEqual(written, [])
})
