import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setEffectHook } from '../../src/base/effects.ts'
import { bindMount, isMountPoint, mountPointsBelow, unmount } from '../../src/os/mounts.ts'
import { SnapshotStore, until } from '../support/snapshot-store.ts'

const store = new SnapshotStore()
const { snapshots } = store

test('a root file system is mounted once, unmounted, mounted again with what was written', async () => {
  const layers = await store.layers(
    [
      { name: './', mode: 0o711, uid: 4, mtime: 9 },
      { name: 'f', content: 'lower' },
    ],
    [{ name: 'g', content: 'upper' }],
  )
  const id = store.newId()
  const root = snapshots.mountRootfs(id, layers)
  assert.equal(root, snapshots.rootfsPath(id))
  const { mode, uid, mtimeMs } = lstatSync(root)
  assert.deepEqual([mode & 0o7777, uid, mtimeMs], [0o711, 4, 9000])
  writeFileSync(join(root, 'f'), 'written')
  assert.equal(readFileSync(join(snapshots.upperPath(id), 'f'), 'utf8'), 'written')
  // As a daemon that was killed and came back.
  const successor = store.open()
  assert.equal(successor.mountRootfs(id, layers), root)
  assert.deepEqual(mountPointsBelow(store.path('rootfs', id)), [root])
  snapshots.unmountRootfs(id)
  snapshots.unmountRootfs(id)
  assert.ok(!isMountPoint(root))
  assert.ok(existsSync(store.path('rootfs', id, 'work/work/incompat/volatile')))
  snapshots.mountRootfs(id, layers)
  assert.equal(readFileSync(join(root, 'f'), 'utf8'), 'written')
  assert.equal(lstatSync(root).uid, 4)
  assert.deepEqual(successor.listRootfs(), [id])
  await successor.removeRootfs(id)
  await successor.removeRootfs(id)
  assert.deepEqual(snapshots.listRootfs(), [])
  await successor.close()
})

test('a root file system of an image without layers', async () => {
  const id = store.newId()
  const root = snapshots.mountRootfs(id, [])
  writeFileSync(join(root, 'f'), 'x')
  assert.deepEqual(readdirSync(root), ['f'])
  assert.equal(lstatSync(root).mode & 0o7777, 0o755)
  snapshots.mountRootfs(`${id}-other`, [])
  assert.deepEqual(readdirSync(snapshots.rootfsPath(`${id}-other`)), [])
  for (const name of [id, `${id}-other`]) await snapshots.removeRootfs(name)
})

test('a mount that was cut short anywhere is made good or undone', async () => {
  const layers = await store.layers([
    { name: './', mode: 0o1777 },
    { name: 'f', content: 'x' },
  ])
  for (let failing = 1, done = false; !done; failing++) {
    const id = store.newId()
    let count = 0
    setEffectHook({
      sync: () => {
        if (++count === failing) throw new Error('stopped')
      },
      async: async () => undefined,
    })
    try {
      snapshots.mountRootfs(id, layers)
      done = true
    } catch (error) {
      assert.equal((error as Error).message, 'stopped')
    } finally {
      setEffectHook(undefined)
    }
    if (failing % 2 === 0) {
      const root = snapshots.mountRootfs(id, layers)
      assert.equal(readFileSync(join(root, 'f'), 'utf8'), 'x')
      assert.equal(statSync(root).mode & 0o7777, 0o1777)
    }
    await snapshots.removeRootfs(id)
  }
  snapshots.sweep()
  await store.emptied()
  assert.deepEqual([snapshots.listRootfs(), readdirSync(store.path('trash'))], [[], []])
})

test('a view of an image is read-only and goes with the container', async () => {
  const layers = await store.layers([{ name: 'f', content: 'one' }], [{ name: 'g', content: 'two' }])
  const id = store.newId()
  const views = [layers, layers.slice(1), []].map((some, i) => snapshots.mountImageView(id, i, some))
  assert.equal(snapshots.mountImageView(id, 0, layers), views[0])
  assert.deepEqual(
    views.map(view => readdirSync(view).sort()),
    [['f', 'g'], ['f'], []],
  )
  for (const view of views) {
    assert.throws(() => writeFileSync(join(view, 'new'), 'x'), { code: 'EROFS' })
  }
  assert.equal(mountPointsBelow(store.path('rootfs', id)).length, 3)
  snapshots.mountRootfs(id, layers)
  snapshots.unmountRootfs(id)
  assert.deepEqual(mountPointsBelow(store.path('rootfs', id)), [])
  snapshots.mountImageView(id, 1, layers)
  await snapshots.removeRootfs(id)
  assert.deepEqual(mountPointsBelow(store.root), [])
  assert.equal(readFileSync(join(layers[1]!, 'f'), 'utf8'), 'one')
})

test('nobody but root gets at layers and root file systems, also where the directories were open before', async () => {
  const open = new SnapshotStore()
  for (const name of ['', 'layers', 'staging', 'rootfs', 'trash']) {
    chmodSync(open.path(name), 0o777)
  }
  await open.open().close()
  for (const name of ['layers', 'staging', 'trash']) {
    assert.equal(lstatSync(open.path(name)).mode & 0o7777, 0o700, name)
  }
  // The way to the root file systems of user namespaces.
  for (const name of ['', 'rootfs']) assert.equal(lstatSync(open.path(name)).mode & 0o7777, 0o711, name)
  await open.mounted([{ name: 'f', content: 'x' }])
  for (const id of open.snapshots.listRootfs()) {
    assert.equal(lstatSync(open.path('rootfs', id)).mode & 0o7777, 0o700)
  }
})

test('what is discarded is gone by name at once, and what cannot be deleted is tried again', async () => {
  const [layer = ''] = await store.layers([{ name: 'd/' }, { name: 'd/f', content: 'x' }])
  assert.ok(snapshots.listLayerDirs().includes(layer.slice(layer.lastIndexOf('/') + 1)))
  snapshots.discard(layer)
  assert.ok(!existsSync(layer))
  snapshots.discard(layer)
  await store.emptied()
  assert.deepEqual(readdirSync(store.path('trash')), [])
  const busy = snapshots.stagingPath('busy')
  mkdirSync(join(busy, 'mounted'), { recursive: true })
  bindMount(store.path('empty'), join(busy, 'mounted'))
  snapshots.discard(busy)
  await until(() => store.logged.length > 0, 'the failure is logged')
  const [left = ''] = readdirSync(store.path('trash'))
  assert.match(JSON.stringify(store.logged), /busy.*is mounted.*trash not deleted/)
  assert.ok(existsSync(store.path('empty/0')))
  unmount(store.path('trash', left, 'mounted'))
  await until(() => readdirSync(store.path('trash')).length === 0, 'it is tried again without being asked')
})

test('what a pull has left and a start cannot move away is tried again until it is gone', async () => {
  const left = [store.path('staging/left'), store.path('records/7')]
  for (const path of left) {
    mkdirSync(path)
    bindMount(store.path('empty'), path)
  }
  snapshots.sweep()
  assert.match(JSON.stringify(store.logged), /left.*EBUSY.*what a pull has left could not be moved away/)
  for (const path of left) {
    assert.ok(existsSync(path))
    unmount(path)
  }
  await until(() => left.every(path => !existsSync(path)), 'it is tried again without being asked')
  await store.emptied()
  assert.ok(existsSync(store.path('empty/0')))
})

test('staging directories never have the same name, and stay in their folder', () => {
  const [one, two] = [snapshots.stagingPath('sha256:a/../b'), snapshots.stagingPath('sha256:a/../b')]
  assert.notEqual(one, two)
  assert.equal(one.lastIndexOf('/'), store.path('staging').length)
})

test('a layer that could not be finished is not there', async () => {
  const before = snapshots.listLayerDirs()
  const { staging, unpacked } = await store.unpack([{ name: 'f', link: 'nowhere' }])
  await assert.rejects(snapshots.finishLayer(staging, unpacked, []), { code: 'invalid' })
  assert.deepEqual(snapshots.listLayerDirs(), before)
  snapshots.sweep()
  await store.emptied()
  assert.deepEqual(readdirSync(store.path('staging')), [])
})
