import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { crashed } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

async function berth(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubelet().daemon.berth('image', ...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout
}

/** A file of this test, away with the daemon. */
function at(name: string): string {
  const directory = join(kubelet().daemon.directory, 'archives')
  mkdirSync(directory, { recursive: true })
  return join(directory, name)
}

async function imageId(name: string): Promise<string | undefined> {
  const { image } = await kubelet().daemon.client.image('ImageStatus', { image: { image: name } })
  return image?.id
}

/** Nothing of an import or export stays but the images. */
function checkClean(): void {
  const { root } = kubelet().daemon
  assert.deepEqual(readdirSync(join(root, 'staging')), [])
  assert.equal(readdirSync(join(root, 'layers')).length, readdirSync(join(root, 'records')).length)
}

test('killed in the middle of an import, the next one finds nothing in its way', async () => {
  const { id } = await busyboxImage()
  await berth('export', BUSYBOX, '-o', at('again.tar'))
  for (const point of [
    'storage.spool',
    'storage.unpack',
    'storage.rename-layer',
    'state.commit#2',
    'state.commit#3',
  ]) {
    await berth('rm', id)
    await kubelet().daemon.restart({ BERTH_FAULTS: `kill@${point}` })
    await kubelet().daemon.berth('image', 'import', at('again.tar'))
    await crashed(kubelet().daemon)
    await kubelet().daemon.up()
    checkClean()
    await berth('import', at('again.tar'))
    assert.equal(await imageId(BUSYBOX), id, point)
  }
})

test('archives in a directory are imported after the start, once, and again when they are missed', async () => {
  const { daemon } = kubelet()
  const directory = at('preload')
  mkdirSync(directory)
  await berth('export', BUSYBOX, '-o', join(directory, 'busybox.tar'))
  writeFileSync(join(directory, 'broken.tar'), 'no archive')
  writeFileSync(join(directory, '.hidden'), 'not looked at')
  await berth('rm', BUSYBOX)
  const imports = () => daemon.log.split('image imported').length - 1
  const before = imports()
  const preload = { BERTH_PRELOAD_DIR: directory }
  await daemon.restart(preload)
  await until('the image is there', async () => (await imageId(BUSYBOX)) !== undefined)
  await until('the broken one is told', () =>
    /could not be preloaded.*broken\.tar|broken\.tar.*could not/.test(daemon.log),
  )
  assert.doesNotMatch(daemon.log, /\.hidden/)
  assert.equal(imports(), before + 1)
  await daemon.restart(preload)
  const told = () => daemon.log.split('could not be preloaded').length - 1
  await until('the directory was looked through again', () => told() >= 2)
  assert.equal(imports(), before + 1)
  await berth('rm', BUSYBOX)
  await daemon.restart(preload)
  await until('the image is there again', async () => (await imageId(BUSYBOX)) !== undefined)
  rmSync(directory, { recursive: true })
})
