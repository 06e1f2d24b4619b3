import assert from 'node:assert/strict'
import { existsSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { crashed } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

type Stored = {
  readonly id: string
  readonly damage: string
  readonly layers: ReadonlyArray<{
    readonly directory: string
    readonly damage: string
    readonly verified_at: string
    readonly blob_digest: string
  }>
}

async function berth(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubelet().daemon.berth('image', ...args)
  assert.equal(code, 0, stderr)
  return stdout
}

async function inspect(): Promise<Stored> {
  return JSON.parse(await berth('inspect', BUSYBOX)) as Stored
}

/** The directory of the image's top layer, as it is now. */
async function layerDir(): Promise<string> {
  const { layers } = await inspect()
  return join(kubelet().daemon.root, 'layers', layers.at(-1)!.directory)
}

function damage(dir: string): void {
  const file = join(dir, 'bin/busybox')
  const bytes = readFileSync(file)
  bytes[bytes.length - 1]! ^= 1
  writeFileSync(file, bytes)
}

test('a sound image is found so, and damage is named', async () => {
  assert.match(await berth('verify'), /: whole\nlayers: 1 whole\n/)
  assert.notEqual((await inspect()).layers[0]!.verified_at, '0')
  const dir = await layerDir()
  damage(dir)
  const { code, stdout } = await kubelet().daemon.berth('image', 'verify', 'busybox')
  assert.equal(code, 1)
  assert.match(
    stdout,
    /layer [0-9a-f]{12} \(directory 1, of docker\.io\/library\/busybox:latest\): DAMAGED\n/,
  )
  assert.match(stdout, /^ {2}\/\S*busybox was modified at .* instead of 2023/m)
  assert.match(await berth('list'), /damaged: its layer .* \/\S*busybox was modified/)

  // kubelet does not see it any more, so it pulls again, which mends it.
  const { client } = kubelet().daemon
  assert.equal((await client.image('ImageStatus', { image: { image: BUSYBOX } })).image, null)
  const pod = await kubelet().runPod()
  await assert.rejects(kubelet().create(pod, FOREVER), /must be pulled again: its layer .* is damaged/)
  await kubelet().pull(BUSYBOX)
  await kubelet().create(pod, FOREVER)
  assert.notEqual(await layerDir(), dir)
  await until('the damaged directory is gone', () => !existsSync(dir))
})

test('a repair puts a new layer beside the old one, which a running container keeps', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const dir = await layerDir()
  damage(dir)
  const text = await berth('verify', '--repair', BUSYBOX)
  assert.match(text, /was damaged, and is repaired/)
  assert.match(text, /1 containers go on with the damaged directory until they are removed/)
  const repaired = await layerDir()
  assert.notEqual(repaired, dir)
  assert.ok(existsSync(dir) && existsSync(join(repaired, 'bin/busybox')))
  assert.match(await berth('verify'), /layers: 1 whole/)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')

  // The daemon remembers for whom the old directory stays.
  await kubelet().daemon.restart()
  assert.ok(existsSync(dir))
  assert.equal((await kubelet().exec(id, 'cat /etc/passwd')).code, 0)
  await kubelet().run(pod, FOREVER)
  await kubelet().removeAll()
  await until('the old directory is gone', () => !existsSync(dir))
  assert.ok(existsSync(repaired))
})

test('a layer that is missing, empty or another one is noticed where it is used', async () => {
  const { client } = kubelet().daemon
  const pod = await kubelet().runPod()
  const harms: Array<readonly [harm: (dir: string) => void, message: RegExp]> = [
    [dir => rmSync(dir, { recursive: true }), /its directory is missing/],
    [
      dir => {
        renameSync(dir, `${dir}.away`)
        renameSync(join(`${dir}.away`, 'bin'), dir)
        rmSync(`${dir}.away`, { recursive: true })
      },
      /does not bear its mark/,
    ],
    [dir => rmSync(join(dir, 'etc'), { recursive: true }), /its top directory was changed/],
  ]
  for (const [harm, message] of harms) {
    harm(await layerDir())
    await assert.rejects(kubelet().create(pod, FOREVER), message)
    assert.equal((await client.image('ImageStatus', { image: { image: BUSYBOX } })).image, null)
    await kubelet().pull(BUSYBOX)
    await kubelet().create(pod, FOREVER)
  }
})

test('a record that is damaged, and a registry that is gone, are said', async () => {
  const { root, registry } = kubelet().daemon
  const { layers } = await inspect()
  truncateSync(join(root, 'records', layers[0]!.directory), 40)
  registry.faults({ match: /blobs/, status: 404 })
  const { code, stdout } = await kubelet().daemon.berth('image', 'verify', '--repair')
  assert.equal(code, 1)
  assert.match(stdout, /DAMAGED, and could not be repaired\n {2}the record of the layer is damaged/)
  assert.match(stdout, /could not be fetched again \(import or pull an image that has it\): .*: 404/)
  registry.faults()
  assert.match(await berth('verify', '--repair'), /was damaged, and is repaired/)
})

test('killed while it repairs, the daemon has the old layer or the new one, and a retry ends it', async () => {
  for (const point of [
    'storage.seal',
    'storage.rename-record',
    'storage.rename-layer',
    'state.commit#1',
    'state.commit#2',
  ]) {
    damage(await layerDir())
    await kubelet().daemon.berth('image', 'verify')
    await kubelet().daemon.restart({ BERTH_FAULTS: `kill@${point}` })
    await kubelet().daemon.berth('image', 'verify', '--repair')
    await assert.doesNotReject(crashed(kubelet().daemon), point)
    await kubelet().daemon.up()
    assert.match(await berth('verify', '--repair'), /layers: 1 (repaired|whole)/, point)
    assert.match(await berth('verify'), /layers: 1 whole/, point)
    await kubelet().pull(BUSYBOX)
  }
  assert.equal((await inspect()).id, (await busyboxImage()).id)
})
