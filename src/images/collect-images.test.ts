import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import Sqlite from 'better-sqlite3'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { ImageHost, type ImageHostOptions } from '../../test/support/image-host.ts'
import { imageOf, type TestImage } from '../../test/support/images.ts'
import { layerOf } from '../../test/support/layers.ts'
import { saying } from '../../test/support/registry-client.ts'
import { type Effect, setEffectHook } from '../base/effects.ts'

async function start(t: TestContext, options: ImageHostOptions = {}) {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  return ImageHost.start(t, snapshots, options)
}

async function image(...texts: readonly string[]): Promise<TestImage> {
  const layers = texts.map(text => layerOf([{ name: text, content: text.repeat(1000) }]))
  return imageOf(await Promise.all(layers), { architecture: 'amd64' })
}

async function pull(host: ImageHost, ...images: ReadonlyArray<readonly [name: string, image: TestImage]>) {
  for (const [name, pushed] of images) {
    host.server.push(pushed, name, 'latest')
    await host.pull(name)
  }
}

/** As if they had been used that many minutes ago. */
function use(host: ImageHost, ...ages: ReadonlyArray<readonly [image: TestImage, minutes: number]>): void {
  host.db.transact('used', tx => {
    for (const [{ id }, minutes] of ages) {
      tx.images.use(id, BigInt(Date.now() - minutes * 60_000) * 1_000_000n)
    }
  })
}

const names = (host: ImageHost) => host.images.list('').flatMap(({ repoTags }) => repoTags)

test('a dry run names what a prune deletes, and neither touches what is pinned', async t => {
  const host = await start(t, { pinnedImages: ['*/pinned:*'] })
  const [one, pinned] = [await image('base', 'one'), await image('base', 'pinned')]
  await pull(host, ['one', one], ['pinned', pinned])
  const dry = host.images.admin.collect(true, true)
  assert.deepEqual([dry.images.map(({ id }) => id), dry.layers.length, dry.leased.length], [[one.id], 1, 0])
  assert.equal(names(host).length, 2)
  const { images, layers } = host.images.admin.collect(true, false)
  assert.deepEqual([images.length, layers.length], [1, 1])
  assert.deepEqual(names(host), [host.name('pinned:latest')])
  assert.equal(host.db.read.layers.committed().length, 2)
  assert.deepEqual(host.images.admin.collect(false, true).layers, [])
})

test('a dry run says exactly what a run does: shared layers once, held ones not, those of a broken pull as then', async t => {
  const host = await start(t)
  const [one, two, used] = [
    await image('base', 'one'),
    await image('base', 'two'),
    await image('base2', 'used'),
  ]
  const broken = await image('base', 'broken')
  await pull(host, ['one', one], ['two', two], ['used', used])
  const held = new Sqlite(host.file)
  held.pragma('foreign_keys = off')
  const top = host.db.read.images.all().find(({ id }) => id === used.id)?.topLayer
  held.prepare('INSERT INTO container_layers VALUES (?, ?)').run('container', top)
  held.close()
  host.server.push(broken, 'broken', 'latest')
  host.server.faults({ match: new RegExp(broken.layers[1]!.blob.digest), status: 404 })
  await assert.rejects(host.pull('broken'))

  for (const prune of [false, true]) {
    const report = (dryRun: boolean) => {
      const { images, layers, leased, retired } = host.images.admin.collect(prune, dryRun)
      const ids = (list: readonly { readonly chainId: string }[]) => list.map(({ chainId }) => chainId)
      return { images: images.map(({ id }) => id), layers: ids(layers), leased: ids(leased), retired }
    }
    const before = host.db.read.layers.committed()
    const dry = report(true)
    assert.deepEqual(host.db.read.layers.committed(), before)
    assert.deepEqual(report(false), dry)
    const gone = before.filter(({ chainId }) => host.db.read.layers.get(chainId) === undefined)
    assert.deepEqual(new Set(dry.layers), new Set(gone.map(({ chainId }) => chainId)))
    assert.deepEqual([dry.images.length, dry.layers.length], prune ? [3, 3] : [0, 0])
  }
  assert.equal(host.db.read.layers.committed().length, 2, 'those of the container')
})

test('an intent that a failed pull could not take back, as on a full disk, stands in no way', async t => {
  const host = await start(t)
  const [one, two] = [await image('base', 'one'), await image('base', 'two', 'three')]
  await pull(host, ['one', one])
  host.server.push(two, 'two', 'latest')
  t.after(() => setEffectHook(undefined))
  const full = ['layers committed', 'layers given up']
  const fail = ({ subject }: Effect) => {
    if (full.includes(subject)) throw new Error(`full: ${subject}`)
  }
  setEffectHook({ sync: fail, async: async () => undefined })
  await assert.rejects(host.pull('two'), /undoing it failed/)
  setEffectHook(undefined)
  const intents = host.db.read.layers.extracting().length
  assert.ok(intents > 0)
  const dry = host.images.admin.collect(true, true)
  await host.images.remove(one.id)
  assert.deepEqual([dry.layers.length, dry.abandoned.length], [2, intents])
  assert.deepEqual([names(host), host.db.read.layers.totals()], [[], { size: 0, inodes: 0 }])
  assert.deepEqual(host.db.read.layers.extracting(), [])
  await pull(host, ['two', two])
  assert.deepEqual(names(host), [host.name('two:latest')])
})

test('no intent is taken from a pull that is at work, nor what it stands on', async t => {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const host = await ImageHost.start(t, snapshots)
  const [one, two] = [await image('base', 'one'), await image('base', 'two')]
  await pull(host, ['one', one])
  const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  snapshots.onPublish = () => {
    reached.resolve()
    return gate.promise
  }
  const pulling = pull(host, ['two', two])
  await reached.promise
  assert.equal(host.db.read.layers.extracting().length, 1)
  await host.images.remove(one.id)
  assert.equal(host.db.read.layers.extracting().length, 1)
  gate.resolve()
  await pulling
  assert.deepEqual(names(host), [host.name('two:latest')])
  assert.equal(host.db.read.layers.committed().length, 2)
})

test('over the threshold unused images go, the least recently used first, until there is room', async t => {
  const usage = { bytesTotal: 100_000, bytesFree: 0, inodesTotal: 1, inodesFree: 1 }
  const rules = { intervalMs: 0, highThreshold: 90, lowThreshold: 80, minimumAgeMs: 60_000 }
  const host = await start(t, { gc: rules, diskUsage: () => usage })
  const [old, older, young] = [await image('old'), await image('older'), await image('young')]
  await pull(host, ['old', old], ['older', older], ['young', young])
  use(host, [old, 5], [older, 10], [young, 0])
  const sizes = host.db.read.layers.committed().map(({ size }) => size)
  assert.ok(
    sizes.every(size => size > 4000 && size < 10_000),
    String(sizes),
  )

  usage.bytesFree = 15_000
  await host.images.makeRoom()
  assert.equal(names(host).length, 3, 'below the threshold nothing goes')
  usage.bytesFree = 10_000 - 1
  await host.images.makeRoom()
  const left = () => names(host).map(name => /(\w+):latest/.exec(name)?.[1])
  assert.deepEqual(left(), sizes[1]! >= 10_001 ? ['old', 'young'] : ['young'])
  usage.bytesFree = 0
  await host.images.makeRoom()
  assert.deepEqual(left(), ['young'], 'what was used a moment ago stays')
})

test('what was deleted a moment ago and still takes room costs no further image', async t => {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const usage = { bytesTotal: 100_000, bytesFree: 1, inodesTotal: 1, inodesFree: 1 }
  const rules = { intervalMs: 0, highThreshold: 90, lowThreshold: 80, minimumAgeMs: 0 }
  const host = await ImageHost.start(t, snapshots, { gc: rules, diskUsage: () => usage })
  await pull(host, ['one', await image('one')])
  const deleted = Promise.withResolvers<void>()
  snapshots.onEmptied = () => deleted.promise
  const first = host.images.makeRoom()
  assert.equal(host.images.makeRoom(), first, 'one at a time')
  usage.bytesFree = 15_000
  deleted.resolve()
  await first
  assert.equal(names(host).length, 1)
})

test('what keeps an object is told, with what it takes alone', async t => {
  const host = await start(t)
  const [one, two] = [await image('base', 'one'), await image('base', 'two')]
  await pull(host, ['one', one], ['two', two])
  const [base] = one.layers
  const [whole, shared] = [host.images.admin.why(one.id), host.images.admin.why(base!.diffId)]
  assert.equal(whole.kind, 'image')
  assert.ok(whole.alone > 0 && whole.alone < whole.size)
  assert.deepEqual(
    whole.holders.map(({ kind }) => kind),
    ['name', 'name'],
  )
  assert.deepEqual([shared.kind, shared.alone], ['layer', 0])
  assert.deepEqual(
    shared.holders.filter(({ kind }) => kind === 'image').map(({ name }) => name),
    [host.name('one:latest'), host.name('two:latest')],
  )
  assert.equal(host.images.admin.why(base!.blob.digest).id, base!.diffId)
  assert.deepEqual([whole.damage, shared.damage], ['', ''])
  assert.equal(host.images.admin.why(two.digest).kind, 'manifest')
  assert.throws(
    () => host.images.admin.why('nothing'),
    saying('not-found', /image, layer or manifest "nothing"/),
  )
})

test('what keeps a damaged or missing layer is told as ever, and what is wrong with it', async t => {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const host = await ImageHost.start(t, snapshots)
  const [one, two] = [await image('base', 'one'), await image('base', 'two')]
  await pull(host, ['one', one], ['two', two])
  const [base, top] = one.layers
  const dirOf = (diffId: string) => host.db.read.layers.committed().find(one => one.diffId === diffId)!.dir
  const why = (reference: string) => host.images.admin.why(reference)
  rmSync(snapshots.layerPath(dirOf(top!.diffId)), { recursive: true })
  // Nobody has used it since: the question finds it out and writes nothing, and the next pull mends it.
  const noWrite = ({ subject }: Effect) => assert.fail(`written: ${subject}`)
  t.after(() => setEffectHook(undefined))
  setEffectHook({ sync: noWrite, async: async () => undefined })
  assert.match(
    why(one.id).damage,
    new RegExp(`its layer ${top!.diffId} is damaged: its directory is missing`),
  )
  const missing = why(top!.diffId)
  assert.equal(missing.damage, 'its directory is missing')
  assert.deepEqual(
    missing.holders.map(({ kind, name }) => [kind, name]),
    [['image', host.name('one:latest')]],
  )
  assert.deepEqual([why(base!.diffId).damage, why(two.id).damage], ['', ''])
  setEffectHook(undefined)
  await host.pull('one')
  assert.deepEqual([why(one.id).damage, why(top!.diffId).damage], ['', ''])
  assert.equal(names(host).length, 2)

  const layer = host.db.read.layers.committed().find(({ diffId }) => diffId === base!.diffId)!
  host.db.transact('damaged', tx => tx.layers.setDamage(layer.chainId, 'a file is another one'))
  assert.equal(why(base!.blob.digest).damage, 'a file is another one')
})

test('names are given and taken one by one; an image without any stays', async t => {
  const host = await start(t)
  const [one, two] = [await image('one'), await image('two')]
  await pull(host, ['one', one], ['two', two])
  const { admin } = host.images
  assert.equal(admin.tag(one.id, 'example.org/x'), 'example.org/x:latest')
  assert.equal(admin.tag(two.id, 'example.org/x'), 'example.org/x:latest')
  assert.equal(host.images.resolve('example.org/x')?.id, two.id)
  assert.throws(
    () => admin.tag(one.id, `example.org/x@${two.digest}`),
    saying('invalid', /digest cannot be given/),
  )
  assert.throws(() => admin.tag('nothing', 'x'), saying('not-found', /nothing/))
  await assert.rejects(
    admin.remove([one.id], true),
    saying('invalid', /is no name of an image; its names are/),
  )
  await admin.remove([host.name('one:latest'), host.name(`one@${one.digest}`)], true)
  assert.deepEqual(host.images.resolve(one.id)?.repoTags, [])
  await host.restart()
  assert.deepEqual(host.images.resolve(one.id)?.repoDigests, [])
  await assert.rejects(admin.remove([two.id, 'nothing'], false), saying('not-found', /nothing/))
  assert.notEqual(host.images.resolve(two.id), undefined)
})
