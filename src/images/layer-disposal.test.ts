import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { silent } from '../../test/support/image-host.ts'
import { temporaryDirectory } from '../../test/support/registry-client.ts'
import { until } from '../../test/support/wait.ts'
import { digestFromHex } from '../base/digest.ts'
import { Database } from '../state/database.ts'
import { LayerDisposal } from './layer-disposal.ts'
import { LayerHealth } from './layer-health.ts'
import { recoverLayers } from './recover-layers.ts'

class BusySnapshots extends FakeSnapshots {
  /** What cannot be moved away. */
  readonly busy = new Set<string>()

  override discard(path: string): void {
    if (this.busy.has(path)) throw new Error(`EBUSY: ${path}`)
    super.discard(path)
  }
}

function setUp(t: TestContext) {
  const db = Database.open(join(temporaryDirectory(t), 'berth.db'))
  const snapshots = new BusySnapshots()
  const messages: string[] = []
  const log = { ...silent, warn: (_: object, message: string) => void messages.push(message) }
  const disposal = new LayerDisposal({ db, snapshots, log, firstMs: 10 })
  t.after(() => {
    disposal.close()
    db.close()
    snapshots.remove()
  })
  /** A directory that is busy. */
  const make = (path: string) => {
    mkdirSync(path)
    snapshots.busy.add(path)
    return path
  }
  return { db, snapshots, log, messages, disposal, make }
}

test('a directory that cannot be moved away is tried again until it is gone', async t => {
  const { snapshots, messages, disposal, make } = setUp(t)
  const staged = make(snapshots.stagingPath('one'))
  const layer = make(snapshots.layerPath('7'))
  disposal.discardStaged(staged)
  disposal.discardLayer('7')
  const failures = () => messages.filter(message => message === 'what had failed has failed again').length
  await until('both have failed again', () => failures() >= 2)
  assert.ok(existsSync(staged) && existsSync(layer))
  assert.ok(messages.includes('a directory of a layer is left on disk for now'))
  snapshots.busy.clear()
  await until('both are gone', () => !existsSync(staged) && !existsSync(layer))
})

test('a directory that has become that of a layer is left alone', async t => {
  const { db, snapshots, log, disposal, make } = setUp(t)
  const done = Promise.withResolvers<void>()
  Object.assign(log, { info: () => done.resolve() })
  const id = digestFromHex('1'.padStart(64, '0'))
  const row = { chainId: id, diffId: id, blob: { mediaType: '', digest: id, size: 1 } }
  const dir = db.transact('layers extracting', tx => tx.layers.insertExtracting(row, row.blob))
  const layer = make(snapshots.layerPath(dir))
  disposal.discardLayer(dir)
  snapshots.busy.clear()
  await done.promise
  assert.ok(existsSync(layer))
})

test('a start goes on where a stray layer cannot be moved away', async t => {
  const { db, snapshots, log, messages, disposal, make } = setUp(t)
  const stuck = make(snapshots.layerPath('7'))
  mkdirSync(snapshots.layerPath('8'))
  mkdirSync(snapshots.stagingPath('one'))
  await recoverLayers({ db, snapshots, disposal, log }, new LayerHealth(db, log))
  assert.deepEqual(readdirSync(join(snapshots.root, 'layers')), ['7'])
  assert.deepEqual(snapshots.listStaging(), [])
  assert.ok(messages.includes('a directory of a layer is left on disk for now'))
  snapshots.busy.clear()
  await until('it is gone', () => !existsSync(stuck))
})
