import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { silent } from '../../test/support/image-host.ts'
import { temporaryDirectory } from '../../test/support/registry-client.ts'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { type Effect, setEffectHook } from '../base/effects.ts'
import { Database } from '../state/database.ts'
import { LayerCommitter, type StagedLayer } from './commit-layers.ts'
import { LayerDisposal } from './layer-disposal.ts'

const signal = new AbortController().signal

function setUp(t: TestContext) {
  const db = Database.open(join(temporaryDirectory(t), 'berth.db'))
  const snapshots = new FakeSnapshots()
  t.after(() => {
    db.close()
    snapshots.remove()
  })
  const pathsOf = (top: Digest | undefined) =>
    top === undefined ? [] : db.read.layers.chain(top).map(layer => snapshots.layerPath(layer.dir))
  return {
    db,
    snapshots,
    committer: new LayerCommitter({
      db,
      snapshots,
      disposal: new LayerDisposal({ db, snapshots, log: silent }),
      pathsOf,
      has: id => db.read.layers.get(id) !== undefined,
      onReplaced: () => undefined,
    }),
  }
}

function idOf(number: number): Digest {
  return digestFromHex(String(number).padStart(64, '0'))
}

function staged(snapshots: FakeSnapshots, number: number): StagedLayer {
  const id = idOf(number)
  const staging = snapshots.stagingPath(String(number))
  mkdirSync(staging)
  return {
    layer: {
      chainId: id,
      diffId: id,
      ...(number === 1 ? {} : { parent: idOf(number - 1) }),
      blob: { mediaType: '', digest: id, size: 1 },
    },
    staging,
    unpacked: {
      blobDigest: id,
      blobSize: 1,
      diffId: id,
      size: 10,
      inodes: 1,
      implied: [],
      whiteouts: [],
      deferredLinks: [],
    },
  }
}

test('layers that are ready in any order are committed together, above those below them', async t => {
  const { db, snapshots, committer } = setUp(t)
  const gate = Promise.withResolvers<void>()
  const batches: number[] = []
  snapshots.onPublish = async layers => {
    batches.push(layers.length)
    if (batches.length === 1) await gate.promise
  }
  const commits = [1, 4, 3, 2].map(number => committer.commit(staged(snapshots, number), signal))
  gate.resolve()
  await Promise.all(commits)
  assert.deepEqual(batches, [1, 3])
  assert.deepEqual(
    db.read.layers.chain(idOf(4)).map(layer => layer.chainId),
    [4, 3, 2, 1].map(idOf),
  )
  assert.equal(snapshots.commits.at(-1)!.below.length, 3)
})

test('one that cannot be finished fails alone; what stands on it waits until it is given up', async t => {
  const { db, snapshots, committer } = setUp(t)
  const gate = Promise.withResolvers<void>()
  snapshots.onPublish = () => gate.promise
  snapshots.onStep = (step, path) => {
    if (step === 'finish' && path.endsWith('/2')) throw new Error('no such link')
  }
  const abort = new AbortController()
  const first = committer.commit(staged(snapshots, 1), signal)
  const second = committer.commit(staged(snapshots, 2), signal)
  const third = committer.commit(staged(snapshots, 3), abort.signal)
  gate.resolve()
  await first
  await assert.rejects(second, /no such link/)
  abort.abort(new Error('given up'))
  await assert.rejects(third, /given up/)
  assert.equal(db.read.layers.committed().length, 1)

  snapshots.onStep = () => undefined
  for (const number of ['2', '3']) snapshots.discard(snapshots.stagingPath(number))
  await Promise.all([3, 2].map(number => committer.commit(staged(snapshots, number), signal)))
  assert.equal(db.read.layers.committed().length, 3)
})

test('a batch that cannot be published leaves neither rows nor directories', async t => {
  const { db, snapshots, committer } = setUp(t)
  snapshots.onPublish = () => Promise.reject(new Error('no space left on device'))
  await assert.rejects(committer.commit(staged(snapshots, 1), signal), /no space left/)
  assert.deepEqual([db.read.layers.extracting(), db.read.layers.committed()], [[], []])
  assert.deepEqual(readdirSync(join(snapshots.root, 'layers')), [])
  snapshots.onPublish = () => Promise.resolve()
  snapshots.discard(snapshots.stagingPath('1'))
  await committer.commit(staged(snapshots, 1), signal)
  assert.ok(existsSync(snapshots.layerPath(db.read.layers.get(idOf(1))!.dir)))
})

test('a batch whose undo fails too, as on a full disk, is told and stands in no way', async t => {
  const { db, snapshots, committer } = setUp(t)
  t.after(() => setEffectHook(undefined))
  let commitments = 0
  const fail = ({ subject }: Effect) => {
    const isFull = subject === 'layers given up' || (subject === 'layers committed' && ++commitments > 1)
    if (isFull) throw new Error(`full: ${subject}`)
  }
  setEffectHook({ sync: fail, async: async () => undefined })
  const first = Promise.withResolvers<void>()
  snapshots.onPublish = async () => first.promise
  const commits = [1, 2, 3].map(number => committer.commit(staged(snapshots, number), signal))
  first.resolve()
  await commits[0]
  for (const commit of commits.slice(1)) {
    await assert.rejects(commit, /full: layers committed; undoing it failed: full: layers given up/)
  }
  assert.equal(db.read.layers.extracting().length, 2)
  setEffectHook(undefined)
  await committer.commit(staged(snapshots, 2), signal)
  assert.deepEqual([db.read.layers.extracting().length, db.read.layers.committed().length], [0, 2])
})

test('a replacement that failed and cannot be moved away hinders no later one', async t => {
  const { db, snapshots, committer } = setUp(t)
  t.after(() => setEffectHook(undefined))
  await committer.commit(staged(snapshots, 1), signal)
  db.transact('damaged', tx => tx.layers.setDamage(idOf(1), 'a bit is wrong'))
  const stuck = snapshots.layerPath('1.1')
  const { discard } = snapshots
  snapshots.discard = path => {
    if (path === stuck) throw new Error(`EBUSY: ${path}`)
    discard.call(snapshots, path)
  }
  const fail = ({ subject }: Effect) => {
    if (subject === 'layers committed') throw new Error('full')
  }
  setEffectHook({ sync: fail, async: async () => undefined })
  await assert.rejects(committer.commit(staged(snapshots, 1), signal), /^Error: full$/)
  setEffectHook(undefined)
  assert.ok(existsSync(stuck))
  await committer.commit(staged(snapshots, 1), signal)
  const { dir, damage } = db.read.layers.get(idOf(1))!
  assert.deepEqual([dir, damage, existsSync(snapshots.layerPath(dir))], ['1.2', undefined, true])
  assert.deepEqual(db.read.layers.retired(), ['1'])
})

test('who waits for a turn is told when nobody can tell whose turn it is', async t => {
  const { db, snapshots } = setUp(t)
  let isBroken = true
  const committer = new LayerCommitter({
    db,
    snapshots,
    disposal: new LayerDisposal({ db, snapshots, log: silent }),
    pathsOf: () => [],
    has: () => {
      if (isBroken) throw new Error('database is closed')
      return true
    },
    onReplaced: () => undefined,
  })
  await assert.rejects(committer.commit(staged(snapshots, 2), signal), /database is closed/)
  isBroken = false
  await committer.commit(staged(snapshots, 1), signal)
  assert.equal(db.read.layers.committed().length, 1)
})
