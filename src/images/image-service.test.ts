import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import Sqlite from 'better-sqlite3'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { ImageHost, type ImageHostOptions } from '../../test/support/image-host.ts'
import { type ImageOptions, imageOf, indexOf, type TestImage } from '../../test/support/images.ts'
import { type Layer, layerOf } from '../../test/support/layers.ts'
import { saying } from '../../test/support/registry-client.ts'
import { Credentials } from '../registry/credentials.ts'
import type { PullProgress } from './pull-progress.ts'

type Fixture = { readonly host: ImageHost; readonly snapshots: FakeSnapshots }

async function start(t: TestContext, options: ImageHostOptions = {}): Promise<Fixture> {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  return { host: await ImageHost.start(t, snapshots, options), snapshots }
}

const layer = (text: string): Promise<Layer> => layerOf([{ name: text, content: text.repeat(1000) }])

async function image(texts: readonly string[], options: ImageOptions = {}): Promise<TestImage> {
  return imageOf(await Promise.all(texts.map(layer)), { architecture: 'amd64', ...options })
}

/** Neither staging nor intents, and directories for exactly the committed rows. */
function checkWhole({ host, snapshots }: Fixture, layers: number): void {
  assert.deepEqual(snapshots.listStaging(), [])
  assert.deepEqual(host.db.read.layers.extracting(), [])
  const rows = host.db.read.layers.committed().map(({ dir }) => dir)
  assert.deepEqual(snapshots.listLayerDirs().sort(), rows.sort())
  assert.equal(rows.length, layers)
}

test('a pulled image is the same object under every name', async t => {
  const { host, snapshots } = await start(t)
  const pushed = await image(['low', 'high'], { user: '7', labels: { a: 'b' } })
  host.server.push(pushed, 'team/app', 'v1')
  const id = await host.pull('team/app:v1')
  assert.equal(id, pushed.id)

  const [found] = host.images.list('')
  assert.ok(found)
  assert.deepEqual(found.repoTags, [host.name('team/app:v1')])
  assert.deepEqual(found.repoDigests, [host.name(`team/app@${pushed.digest}`)])
  const blobs = pushed.layers.reduce((sum, { blob }) => sum + blob.size, 0)
  assert.equal(found.size, blobs + pushed.config!.size)
  const hex = id.slice('sha256:'.length)
  const names = ['team/app:v1', `team/app@${pushed.digest}`, `team/app:other@${pushed.digest}`]
  for (const name of [...names.map(name => host.name(name)), id, hex, hex.slice(0, 12)]) {
    assert.equal(host.images.resolve(name), found, name)
    assert.deepEqual(host.images.list(name), [found])
  }
  for (const name of ['team/app', 'app:v1', '', 'no name!', `sha256:${'0'.repeat(64)}`, '0'.repeat(12)]) {
    assert.equal(host.images.status(name), undefined, name)
  }

  assert.deepEqual(
    host.images.layersOf(found),
    ['2', '1'].map(dir => snapshots.layerPath(dir)),
  )
  const details = host.images.inspect(id)
  const chainId = createHash('sha256').update(pushed.layers.map(({ diffId }) => diffId).join(' '))
  assert.equal(details?.chainId, `sha256:${chainId.digest('hex')}`)
  assert.equal(details?.manifestDigest, pushed.digest)
  assert.deepEqual((details?.config as { config: { User: string } } | undefined)?.config.User, '7')
  const usage = host.images.fsUsage()
  assert.equal(usage.inodesUsed, 2n)
  assert.ok(usage.usedBytes > 7000n)
  checkWhole({ host, snapshots }, 2)

  await host.restart()
  assert.deepEqual(host.images.list(''), [found])
})

test('of an index, the digest that was asked for is recorded; by digest there is no tag', async t => {
  const { host } = await start(t)
  const child = await image(['one'])
  const index = indexOf([{ image: child, platform: { os: 'linux', architecture: 'amd64' } }])
  host.server.push(index, 'app', 'latest')
  await host.pull(`app@${index.digest}`)
  assert.deepEqual(host.images.list('')[0]?.repoTags, [])
  await host.pull('app')
  const [found] = host.images.list('')
  assert.deepEqual(found?.repoTags, [host.name('app:latest')])
  assert.deepEqual(found?.repoDigests, [host.name(`app@${index.digest}`)])
  assert.equal(host.images.inspect(child.id)?.manifestDigest, child.digest)
})

test('equal pulls at the same time are one, and images share the layers they have in common', async t => {
  const fixture = await start(t)
  const { host } = fixture
  const one = await image(['base', 'middle', 'one'])
  const two = await image(['base', 'middle', 'two'])
  host.server.push(one, 'app', 'one')
  host.server.push(two, 'app', 'two')
  const ids = await Promise.all([
    ...Array.from({ length: 10 }, () => host.pull('app:one')),
    ...Array.from({ length: 10 }, () => host.pull('app:two')),
  ])
  assert.deepEqual(new Set(ids), new Set([one.id, two.id]))
  for (const blob of [one, two].flatMap(({ config, layers }) => [config!, ...layers.map(l => l.blob)])) {
    assert.equal(host.downloads(blob.digest), 1)
  }
  assert.equal(host.server.requestsTo(/manifests/).length, 2)
  checkWhole(fixture, 4)
})

test('the registry is asked even when everything is here, with the credentials of each caller', async t => {
  const { host } = await start(t)
  const pushed = await image(['one'])
  host.server.push(pushed, 'app', 'latest')
  host.server.auth = { kind: 'bearer', username: 'me', password: 'geheim' }
  const credentials = Credentials.from({ username: 'me', password: 'geheim' })
  await host.pull('app', { credentials })
  assert.equal(await host.pull('app', { credentials }), pushed.id)
  assert.equal(host.downloads(pushed.layers[0]!.blob.digest), 1)
  const wrong = Credentials.from({ username: 'me', password: 'falsch, geheim' })
  const [good, bad, anonymous] = await Promise.allSettled([
    host.pull('app', { credentials }),
    host.pull('app', { credentials: wrong }),
    host.pull('app'),
  ])
  assert.equal(good.status, 'fulfilled')
  for (const result of [bad, anonymous]) {
    assert.equal(result.status, 'rejected')
    saying('unknown', /access denied/)(result.reason)
  }
})

test('who leaves is alone in it; when the last one leaves nothing stays, and the next pull succeeds', async t => {
  const fixture = await start(t)
  const { host, snapshots } = fixture
  const pushed = await image(['one', 'two', 'three'])
  host.server.push(pushed, 'app', 'latest')
  const [first, second, unpacking] = [
    new AbortController(),
    new AbortController(),
    Promise.withResolvers<void>(),
  ]
  const release = Promise.withResolvers<void>()
  snapshots.onStep = async step => {
    if (step !== 'unpack') return
    unpacking.resolve()
    await release.promise
  }
  const pulls = [host.pull('app', { signal: first.signal }), host.pull('app', { signal: second.signal })]
  await unpacking.promise
  first.abort()
  await assert.rejects(pulls[0]!, saying('cancelled', /gave up/))
  assert.equal(await Promise.race([pulls[1], turn('running')]), 'running')
  second.abort()
  await assert.rejects(pulls[1]!, saying('cancelled', /gave up/))
  release.resolve()
  assert.equal(await host.pull('app'), pushed.id)
  checkWhole(fixture, 3)

  await host.images.remove(pushed.id)
  await assert.rejects(host.pull('app', { signal: AbortSignal.abort() }), saying('cancelled', /gave up/))
  await host.restart()
  assert.deepEqual(host.images.list(''), [])
  checkWhole(fixture, 0)
})

test('content that is not what it should be leaves no image', async t => {
  const fixture = await start(t)
  const { host, snapshots } = fixture
  const good = await image(['one', 'two', 'three'])
  const [one, two, three] = good.layers as [Layer, Layer, Layer]
  const swapped = imageOf([one, { ...two, diffId: three.diffId }], { architecture: 'amd64' })
  host.server.push(swapped, 'app', 'swapped')
  await assert.rejects(
    host.pull('app:swapped'),
    saying('unknown', new RegExp(`app:swapped: layer ${two.blob.digest}: the uncompressed content`)),
  )
  host.server.push(good, 'app', 'good')
  host.server.faults({ match: new RegExp(`blobs/${three.blob.digest}`), corrupt: true, times: 1 })
  await assert.rejects(
    host.pull('app:good'),
    saying('unknown', new RegExp(`app:good: layer ${three.blob.digest}`)),
  )
  host.server.push(imageOf([one, one], { architecture: 'arm64' }), 'app', 'foreign')
  await assert.rejects(
    host.pull('app:foreign'),
    saying('unknown', /app:foreign: image configuration .*linux\/arm64/),
  )
  snapshots.onStep = step => {
    if (step === 'commit')
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
  }
  await assert.rejects(
    host.pull(`app@${good.digest}`),
    saying('unknown', /app@sha256:.*: layer sha256:.*: ENOSPC: no space left on device/),
  )
  assert.deepEqual(host.images.list(''), [])

  // What was good is kept for the next try.
  snapshots.onStep = () => undefined
  assert.equal(await host.pull('app:good'), good.id)
  assert.equal(host.downloads(one.blob.digest), 1)
  checkWhole(fixture, 3)
})

test('a layer that another pull cannot get is taken from the registry of this one', async t => {
  const { host, snapshots } = await start(t)
  const pushed = await image(['one', 'two'])
  host.server.push(pushed, 'broken', 'latest')
  host.server.push(pushed, 'whole', 'latest')
  const digest = pushed.layers[0]!.blob.digest
  const waiting = Promise.withResolvers<void>()
  host.server.faults({ match: new RegExp(`broken/blobs/${digest}`), delayMs: 50, status: 404 })
  snapshots.onStep = () => waiting.resolve()
  const broken = host.pull('broken')
  broken.catch(() => undefined)
  await waiting.promise
  const whole = host.pull('whole')
  await assert.rejects(broken, saying('not-found', new RegExp(`broken:latest: blob ${digest}`)))
  assert.equal(await whole, pushed.id)
})

test('a tag that moves is taken from the image that had it', async t => {
  const { host } = await start(t, { pinnedImages: ['*:v1*'] })
  const [before, after] = [await image(['one']), await image(['two'])]
  host.server.push(before, 'app', 'v1')
  await host.pull('app:v1')
  const old = host.images.status(before.id)
  assert.equal(old?.pinned, true)
  host.server.push(after, 'app', 'v1')
  await host.pull('app:v1')
  const check = () => {
    const [first, second] = host.images.list('')
    assert.deepEqual([first?.id, second?.id], [before.id, after.id])
    assert.deepEqual([first?.repoTags, second?.repoTags], [[], [host.name('app:v1')]])
    assert.deepEqual(first?.repoDigests, [host.name(`app@${before.digest}`)])
    assert.deepEqual([first?.pinned, second?.pinned], [false, true])
  }
  check()
  await host.restart()
  check()
})

test('removing an image by any name removes it whole; shared layers and those of containers stay', async t => {
  const fixture = await start(t)
  const { host } = fixture
  const [one, two] = [await image(['base', 'one']), await image(['base', 'two'])]
  for (const tag of ['a', 'b']) {
    host.server.push(one, 'app', tag)
    await host.pull(`app:${tag}`)
  }
  host.server.push(two, 'other', 'latest')
  await host.pull('other')
  checkWhole(fixture, 3)
  await Promise.all(['app:a', 'app:b', 'app:c'].map(name => host.images.remove(host.name(name))))
  assert.deepEqual(
    host.images.list('').map(({ id }) => id),
    [two.id],
  )
  checkWhole(fixture, 2)

  const top = host.images.status(two.id)!.topLayer!
  const other = new Sqlite(host.file)
  other.pragma('foreign_keys = OFF')
  other.prepare('INSERT INTO container_layers VALUES (?, ?)').run('container', top)
  await host.images.remove(two.id.slice(0, 20))
  checkWhole(fixture, 2)
  other.prepare('DELETE FROM container_layers').run()
  other.close()
  await host.images.collect()
  checkWhole(fixture, 0)
})

test('garbage collection leaves a running pull alone', async t => {
  const fixture = await start(t)
  const { host, snapshots } = fixture
  const pushed = await image(['one', 'two', 'three'])
  host.server.push(pushed, 'app', 'latest')
  snapshots.onStep = () => host.images.collect()
  await host.pull('app')
  checkWhole(fixture, 3)
})

test('after an end at any moment rows and directories agree again', async t => {
  const fixture = await start(t)
  const { host, snapshots } = fixture
  const [one, two] = [await image(['base', 'one']), await image(['base', 'two'])]
  host.server.push(one, 'app', 'one')
  host.server.push(two, 'app', 'two')
  await host.pull('app:one')
  await host.pull('app:two')

  // As if the daemon had been killed before, in and after the rename of a layer.
  const digest = (text: string) => `sha256:${text.repeat(32)}` as never
  const parent = host.images.status(one.id)!.topLayer!
  host.db.transact('intents', tx => {
    const blob = { digest: digest('dd'), size: 1 }
    tx.layers.insertExtracting({ chainId: digest('aa'), diffId: digest('aa'), parent }, blob)
    const dir = tx.layers.insertExtracting({ chainId: digest('bb'), diffId: digest('bb') }, blob)
    mkdirSync(snapshots.layerPath(dir))
  })
  mkdirSync(snapshots.layerPath('99'))
  mkdirSync(snapshots.stagingPath('half'))
  await host.restart()
  checkWhole(fixture, 3)
  assert.equal(host.images.list('').length, 2)

  // The images that stand on a layer that is lost cannot be used until they are pulled again; their names stay.
  const [lost] = host.images.layersOf(host.images.status(two.id)!)
  rmSync(lost!, { recursive: true })
  await host.restart()
  assert.deepEqual(
    host.images.list('').map(({ id }) => id),
    [one.id],
  )
  assert.throws(
    () => host.images.require(two.id),
    saying('not-found', /pulled again: its layer .* is missing/),
  )
  assert.deepEqual(
    host.images.admin
      .list('')
      .map(({ image, damage }) => [image.id, image.repoTags.length, damage !== undefined]),
    [
      [one.id, 1, false],
      [two.id, 1, true],
    ],
  )
  await host.pull('app:two')
  assert.equal(host.images.layersOf(host.images.status(two.id)!)[0], `${lost}.1`)
  checkWhole(fixture, 3)
})

test('progress ends with every layer, for each who waits', async t => {
  const { host } = await start(t)
  const base = await image(['base'])
  const pushed = await image(['base', 'one'])
  host.server.push(base, 'base', 'latest')
  host.server.push(pushed, 'app', 'latest')
  await host.pull('base')
  const seen: [PullProgress[], PullProgress[]] = [[], []]
  await Promise.all(seen.map(list => host.pull('app', { onProgress: progress => list.push(progress) })))
  for (const list of seen) {
    const wanted = pushed.layers.map(({ blob }, index) => ({
      digest: blob.digest,
      state: index === 0 ? 'exists' : 'done',
      bytes: blob.size,
      unpacked: blob.size,
      total: blob.size,
      waitsFor: '',
    }))
    assert.deepEqual(list.at(-1)?.layers, wanted)
  }
})

test('closing breaks pulls off and waits for what they leave behind', async t => {
  const fixture = await start(t)
  const { host, snapshots } = fixture
  host.server.push(await image(['one']), 'app', 'latest')
  const started = Promise.withResolvers<void>()
  snapshots.onStep = () => started.resolve()
  host.server.faults({ match: /blobs/, after: 1, stallAt: 10 })
  const pull = host.pull('app')
  const failure = assert.rejects(pull, saying('unavailable', /stopping/))
  while (host.server.requestsTo(/blobs/).length < 2) await turn()
  await host.images.close()
  await failure
  checkWhole(fixture, 0)
  await assert.rejects(host.pull('app'), saying('unavailable', /stopping/))
})

test('a short name is what the first registry that has it says, and is found again', async t => {
  const second = await ImageHost.start(t, new FakeSnapshots())
  const { host } = await start(t, {
    conf: `unqualified-search-registries = ["localhost:1", "${second.server.address}"]\nshort-name-mode = "permissive"\n`,
  })
  const pushed = await image(['one'])
  second.server.push(pushed, 'app', 'latest')
  const signal = new AbortController().signal
  assert.equal(await host.images.pull('app', undefined, signal), pushed.id)
  assert.equal(host.images.status('app:latest')?.id, pushed.id)
  assert.deepEqual(host.images.list('app')[0]?.repoTags, [`${second.server.address}/app:latest`])
  await assert.rejects(
    host.images.pull('other', undefined, signal),
    saying('unknown', /^other: RegistryUnavailable: localhost:1\/other:latest.*; .*other:latest: not found/),
  )
  await assert.rejects(host.images.pull('No Name', undefined, signal), saying('invalid', /No Name/))
})
