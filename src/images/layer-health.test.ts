import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { test } from 'node:test'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { ImageHost, recordingLog } from '../../test/support/image-host.ts'
import { imageOf } from '../../test/support/images.ts'
import { layerOf } from '../../test/support/layers.ts'
import { saying } from '../../test/support/registry-client.ts'
import { LayerHealth } from './layer-health.ts'

test('a layer that is lost at run time is brought back by a pull, below others too', async t => {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const host = await ImageHost.start(t, snapshots)
  const layers = ['one', 'two', 'three'].map(name => layerOf([{ name, content: name }]))
  const pushed = imageOf(await Promise.all(layers), { architecture: 'amd64' })
  host.server.push(pushed, 'app', 'latest')
  const id = await host.pull('app')
  const whole = host.images.status(id)!
  rmSync(host.images.layersOf(whole)[1]!, { recursive: true })
  assert.throws(() => host.images.layersOf(whole), saying('precondition', /app:latest must be pulled again/))
  assert.equal(host.images.status(id), undefined)
  await host.pull('app')
  assert.equal(host.images.status(id), whole)
  await host.images.collect()
  assert.deepEqual(snapshots.listLayerDirs().sort(), ['1', '2.1', '3'])
  assert.deepEqual(
    pushed.layers.map(({ blob }) => host.downloads(blob.digest)),
    [1, 2, 1],
  )
})

test('what was found in a directory that is replaced by now says nothing about the layer', async t => {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  const host = await ImageHost.start(t, snapshots)
  host.server.push(
    imageOf([await layerOf([{ name: 'one', content: 'one' }])], { architecture: 'amd64' }),
    'app',
    'latest',
  )
  const id = await host.pull('app')
  const [before] = host.db.read.layers.committed()
  const health = new LayerHealth(host.db, recordingLog([]))
  health.report(before!, 'a bit is wrong')
  await host.restart()
  await host.pull('app')
  const late = new LayerHealth(host.db, recordingLog([]))
  late.report(before!, 'its directory is missing')
  late.verified(before!, 1n)
  const [after] = host.db.read.layers.committed()
  assert.deepEqual([after?.dir, after?.damage, after?.verifiedAt], ['1.1', undefined, 0n])
  assert.equal(late.damageOf(id), undefined)
})
