import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Log } from '../../src/observe/log.ts'
import { mount, unmount } from '../../src/os/mounts.ts'
import { createSnapshots } from '../../src/storage/overlay.ts'
import { ImageHost } from '../support/image-host.ts'
import { imageOf } from '../support/images.ts'
import { layerOf } from '../support/layers.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20

const silent: Log = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  fatal: () => undefined,
  child: () => silent,
}

/** An image service whose layers, records, staging and database are on a file system of 32 MiB. */
async function start(t: TestContext) {
  const disk = mkdtempSync('/tmp/berth-full-')
  mount('tmpfs', disk, 'tmpfs', 0, 'size=32m')
  const temporary = process.env.TMPDIR
  process.env.TMPDIR = disk // where the database goes
  const snapshots = createSnapshots({ root: join(disk, 'root'), workers: 2, gzipProgram: '', log: silent })
  const host = await ImageHost.start(t, snapshots)
  process.env.TMPDIR = temporary ?? '/tmp'
  t.after(async () => {
    await host.images.close()
    await snapshots.close()
    unmount(disk, { detach: true })
    rmSync(disk, { recursive: true, force: true })
  })
  const list = (name: string) => readdirSync(join(disk, 'root', name))
  /** Nothing half there: as many directories and records as rows, nothing on its way. */
  const isClean = async () => {
    // Layers beside the one that failed are given up on their own.
    await until('nothing is on its way', () => list('staging').length === 0)
    const rows = host.db.read.layers.committed().map(({ dir }) => dir)
    assert.deepEqual(host.db.read.layers.extracting(), [])
    assert.deepEqual(list('layers').sort(), rows.sort())
    assert.deepEqual(list('records').sort(), rows.sort())
    await until('the trash is empty', () => list('trash').length === 0)
  }
  return { host, isClean, ballast: join(disk, 'ballast') }
}

async function bigImage() {
  const layers = [4, 5, 6].map(size =>
    layerOf([{ name: `file-${size}`, content: randomBytes(size * MIB) }], 'none'),
  )
  return imageOf(await Promise.all(layers), { architecture: 'amd64' })
}

test('a pull that fills the disk says so, leaves nothing half, and works once there is room', async t => {
  const { host, isClean, ballast } = await start(t)
  const image = await bigImage()
  host.server.push(image, 'app', 'latest')
  for (const used of [30, 27, 24, 20]) {
    writeFileSync(ballast, Buffer.alloc(used * MIB))
    await assert.rejects(host.pull('app'), /ENOSPC|disk is full|no space left/)
    await isClean()
    assert.deepEqual(host.images.list(''), [])
    await host.restart()
    assert.deepEqual(host.images.list(''), [])
  }
  rmSync(ballast)
  await isClean()
  assert.equal(await host.pull('app'), image.id)
  await isClean()
  for await (const event of host.images.admin.verify([], false, new AbortController().signal)) {
    if (event.kind === 'layer') assert.equal(event.result.state, 'whole')
  }
})

test('an import that fills the disk, while it is laid out or unpacked, leaves nothing', async t => {
  const { host, isClean, ballast } = await start(t)
  const { signal } = new AbortController()
  const image = await bigImage()
  host.server.push(image, 'app', 'latest')
  await host.pull('app')
  const pieces: Buffer[] = []
  for await (const event of host.images.admin.export([image.id], signal)) {
    if (event.kind === 'data') pieces.push(event.bytes)
  }
  await host.images.remove(image.id)
  await isClean()
  async function* archive() {
    yield* pieces
  }
  const importing = async () => {
    for await (const event of host.images.admin.import(archive(), '', signal)) void event
  }
  // The archive takes 15 MiB, and so do the layers.
  for (const used of [25, 12, 4]) {
    writeFileSync(ballast, Buffer.alloc(used * MIB))
    await assert.rejects(importing(), /ENOSPC|no space left/)
    await host.images.collect()
    await isClean()
    assert.deepEqual(host.images.list(''), [])
  }
  rmSync(ballast)
  await importing()
  assert.equal(host.images.list('')[0]?.id, image.id)
  await isClean()
})
