import assert from 'node:assert/strict'
import { test } from 'node:test'
import { indexOf, withManifest } from '../../test/support/images.ts'
import {
  checkLayer,
  resolve,
  saying,
  signal,
  smallImage,
  startClient,
  startServer,
} from '../../test/support/registry-client.ts'
import { type Effect, setEffectHook } from '../base/effects.ts'
import { parseReference } from './reference.ts'

test('an image by tag and by digest, in both manifest formats', async t => {
  const registry = await startServer(t)
  const berth = startClient(t)
  for (const manifest of ['oci', 'docker'] as const) {
    const pushed = await smallImage({ manifest })
    const digest = registry.push(pushed, `team/${manifest}`, 'v1')
    for (const version of [':v1', `@${digest}`]) {
      const repository = berth.repository(
        parseReference(`${registry.address}/team/${manifest}${version}`),
        undefined,
      )
      const resolved = await repository.resolve(signal)
      assert.equal(resolved.digest, digest)
      assert.equal(resolved.manifestDigest, digest)
      assert.deepEqual(resolved.manifestBytes, pushed.manifest)
      assert.equal(resolved.mediaType, pushed.mediaType)
      assert.deepEqual(await repository.readBlob(resolved.config, 1 << 20, signal), pushed.config?.data)
      assert.deepEqual(
        resolved.layers.map(layer => layer.digest),
        pushed.layers.map(layer => layer.blob.digest),
      )
    }
  }
  assert.ok(registry.requests.every(request => request.headers['user-agent'] === 'berth/test'))
})

test('an index leads to the manifest of the platform, also through another index', async t => {
  const registry = await startServer(t)
  const [amd64, arm64, armv6, armv7] = await Promise.all(
    ['amd64', 'arm64', 'armv6', 'armv7'].map(name => smallImage({ labels: { name } })),
  )
  const members = [
    { image: armv6!, platform: { os: 'linux', architecture: 'arm', variant: 'v6' } },
    { image: armv7!, platform: { os: 'linux', architecture: 'arm', variant: 'v7' } },
    { image: arm64!, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
    { image: armv6!, platform: { os: 'unknown', architecture: 'unknown' } },
    { image: armv6!, platform: { os: 'windows', architecture: 'amd64' } },
    { image: armv6!, platform: { os: 'linux', architecture: 'amd64', variant: 'v4' } },
    { image: amd64!, platform: { os: 'linux', architecture: 'amd64' } },
  ]
  const index = indexOf(members)
  const nested = indexOf([{ image: index }], 'docker')
  const digest = registry.push(index, 'multi', 'v1')
  registry.push(nested, 'multi', 'nested')
  registry.push(indexOf([{ image: nested }]), 'multi', 'too-deep')
  const at = (architecture: string) => startClient(t, '', { platform: { os: 'linux', architecture } })
  const name = `${registry.address}/multi`
  assert.equal((await resolve(at('amd64'), `${name}:v1`)).manifestDigest, amd64!.digest)
  assert.equal((await resolve(at('amd64'), `${name}:v1`)).digest, digest)
  assert.equal((await resolve(at('arm64'), `${name}:v1`)).manifestDigest, arm64!.digest)
  assert.equal((await resolve(at('arm'), `${name}:v1`)).manifestDigest, armv7!.digest)
  assert.equal((await resolve(at('amd64'), `${name}:nested`)).manifestDigest, amd64!.digest)
  await assert.rejects(
    resolve(at('amd64'), `${name}:too-deep`),
    saying('unknown', /an index of an index of an index/),
  )
  await assert.rejects(
    resolve(at('s390x'), `${name}:v1`),
    saying(
      'unknown',
      /no variant for linux\/s390x; it offers "linux\/arm\/v6", "linux\/arm\/v7", .*"linux\/amd64"/,
    ),
  )
})

test('manifests that must not be used', async t => {
  const registry = await startServer(t)
  const berth = startClient(t)
  const good = await smallImage()
  const document = JSON.parse(good.manifest.toString())
  const config = document.config
  const cases: ReadonlyArray<[what: string, document: unknown, expected: RegExp, mediaType?: string]> = [
    ['both', { ...document, manifests: [] }, /must not have "manifests"/],
    [
      'twice',
      Buffer.from(good.manifest.toString().replace('{', '{"layers":[],')),
      /member "layers" occurs twice/,
    ],
    [
      'liar',
      document,
      /says it is ".*manifest.v1\+json" but was served as ".*manifest.v2\+json"/,
      'application/vnd.docker.distribution.manifest.v2+json',
    ],
    [
      'schema1',
      { schemaVersion: 1, name: 'x', fsLayers: [] },
      /schema 1/,
      'application/vnd.docker.distribution.manifest.v1+prettyjws',
    ],
    ['schema3', { ...document, schemaVersion: 3 }, /schemaVersion 3; expected 2/],
    ['html', Buffer.from('<html>'), /not valid JSON/, 'text/html'],
    ['list', [], /no JSON object/],
    [
      'untyped',
      { ...document, mediaType: undefined },
      /media type is "application\/json"; expected one of/,
      'application/json',
    ],
    [
      'traversal',
      { ...document, config: { ...config, digest: 'sha256:../../../etc/passwd' } },
      /config\.digest: expected "sha256:"/,
    ],
    [
      'uppercase',
      { ...document, config: { ...config, digest: config.digest.toUpperCase() } },
      /config\.digest/,
    ],
    [
      'negative',
      { ...document, config: { ...config, size: -1 } },
      /config\.size: expected a number of bytes, got -1/,
    ],
    [
      'artifact',
      { ...document, config: { ...config, mediaType: 'application/vnd.example+json' } },
      /not a container image but an artifact/,
    ],
    [
      'wasm',
      { ...document, layers: [{ ...document.layers[0], mediaType: 'application/wasm' }] },
      /layers\[0\] is of type "application\/wasm"/,
    ],
    [
      'encrypted',
      {
        ...document,
        layers: [
          { ...document.layers[0], mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted' },
        ],
      },
      /no layer a container can run from/,
    ],
    [
      'layers',
      { ...document, layers: Array(129).fill(document.layers[0]) },
      /layers: 129 entries; at most 128/,
    ],
    ['huge', Buffer.alloc(4 * 1024 * 1024 + 1, ' '), /larger than 4194304 bytes/],
  ]
  for (const [tag, manifest, expected, mediaType] of cases) {
    registry.push(withManifest(good, manifest, mediaType), 'bad', tag)
    await assert.rejects(resolve(berth, `${registry.address}/bad:${tag}`), saying('unknown', expected), tag)
  }
  assert.equal(registry.requestsTo(/blobs/).length, 0)
})

test('a manifest or index entry that isn’t what its digest and size say', async t => {
  const registry = await startServer(t)
  const berth = startClient(t)
  const digest = registry.push(await smallImage(), 'app', 'v1')
  registry.faults({ match: /manifests/, corrupt: true })
  await assert.rejects(
    resolve(berth, `${registry.address}/app@${digest}`),
    saying('unknown', /has digest sha256:.* instead of sha256/),
  )
  await assert.rejects(resolve(berth, `${registry.address}/app:v1`), saying('unknown', /has digest/))
  registry.faults()
  const member = await smallImage()
  const index = indexOf([{ image: member }])
  const wrong = JSON.parse(index.manifest.toString())
  wrong.manifests[0].size++
  registry.push(withManifest(index, wrong), 'app', 'size')
  wrong.manifests[0].size--
  wrong.manifests[0].mediaType = 'application/vnd.docker.distribution.manifest.v2+json'
  registry.push(withManifest(index, wrong), 'app', 'type')
  await assert.rejects(
    resolve(berth, `${registry.address}/app:size`),
    saying('unknown', /bytes instead of the \d+ that the index says/),
  )
  await assert.rejects(
    resolve(berth, `${registry.address}/app:type`),
    saying('unknown', /that the index says/),
  )
})

test('every request passes the effect hook, which may fail it', async t => {
  const registry = await startServer(t, { auth: { kind: 'bearer', anonymous: true } })
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const effects: string[] = []
  const hook = {
    sync: () => undefined,
    async async(effect: Effect) {
      effects.push(`${effect.layer} ${effect.name}`)
      assert.ok(effect.subject.includes(registry.address) && !effect.subject.includes('?'), effect.subject)
      if (effects.length === 2) throw new Error('the hook fails it')
    },
  }
  setEffectHook(hook)
  t.after(() => setEffectHook(undefined))
  await checkLayer(startClient(t), `${registry.address}/app:v1`, pushed)
  const seen = new Set(effects)
  assert.deepEqual([...seen], ['registry get-manifest', 'registry get-token', 'registry get-blob'])
  assert.ok(effects.length > registry.requests.length, 'one was failed before it was sent')
})
