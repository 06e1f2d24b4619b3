import assert from 'node:assert/strict'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { crashed } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon()

async function berth(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubelet().daemon.berth('image', ...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout
}

async function imageId(name: string): Promise<string | undefined> {
  const { image } = await kubelet().daemon.client.image('ImageStatus', { image: { image: name } })
  return image?.id
}

test('garbage is told and collected; what holds an object is told', async () => {
  const pod = await kubelet().runPod()
  const container = await kubelet().run(pod, FOREVER)
  const why = await berth('why', 'busybox')
  assert.match(
    why,
    /MiB on disk: 0 B alone, .* shared\nkept by\n {2}its name docker\.io\/library\/busybox:latest\n/,
  )
  assert.match(
    why,
    new RegExp(`container default/${pod.config.metadata?.name} c\\d+ \\(${container.slice(0, 12)}\\)`),
  )
  const { layers } = JSON.parse(await berth('inspect', 'busybox'))
  assert.match(await berth('why', layers[0].diff_id), /^layer sha256:.*\n.*\nkept by\n {2}image docker/)
  assert.match(await berth('gc', '--dry-run', '--prune'), /nothing to delete/)

  const other = await kubelet().image('other', { cmd: ['true'] })
  const dry = await berth('gc', '--dry-run', '--prune')
  assert.match(dry, /would delete image [0-9a-f]{12} \(docker\.io\/library\/other:1\)/)
  assert.ok(await imageId(other))
  assert.match(await berth('gc'), /nothing to delete/)
  assert.match(await berth('gc', '--prune'), /deleted image [0-9a-f]{12} \(docker\.io\/library\/other:1\)/)
  assert.equal(await imageId(other), undefined)

  // An image in use: its name goes, the container and its layers stay until it is removed.
  const { stderr } = await kubelet().daemon.berth('image', 'rm', 'busybox')
  assert.match(stderr, new RegExp(`stay for the containers ${container.slice(0, 12)}`))
  assert.equal((await kubelet().exec(container, 'ls /bin/busybox')).code, 0)
  assert.match(await berth('why', layers[0].diff_id), /kept by\n {2}container default/)
  await kubelet().removeAll()
  const { root } = kubelet().daemon
  await until('the layer is gone', () => readdirSync(join(root, 'layers')).length === 0)
  assert.deepEqual(readdirSync(join(root, 'records')), [])
  await kubelet().pull(BUSYBOX)
})

test('what keeps a layer is told where it is damaged or missing, too, and what is wrong with it', async () => {
  const { root, registry } = kubelet().daemon
  const file = (content: string) => [{ name: 'own', content }]
  registry.push(await busyboxImage({ extraLayers: [file('mine')] }), 'quay.io/why/mine', '1')
  await kubelet().pull('quay.io/why/mine:1')
  const { layers } = JSON.parse(await berth('inspect', 'quay.io/why/mine:1'))
  const { diff_id, directory } = layers.at(-1)
  assert.doesNotMatch(await berth('why', diff_id), /damaged/)
  rmSync(join(root, 'layers', directory), { recursive: true })
  assert.match(
    await berth('why', 'quay.io/why/mine:1'),
    /damaged: its layer sha256:\w+ is damaged: .*\nkept by\n {2}its name/,
  )
  assert.match(
    await berth('why', diff_id),
    /^layer .*\n.*\ndamaged: .*\nkept by\n {2}image quay\.io\/why\/mine:1\n/,
  )
  await kubelet().pull('quay.io/why/mine:1')
  assert.doesNotMatch(await berth('why', diff_id), /damaged/)
  await kubelet().daemon.berth('image', 'rm', 'quay.io/why/mine:1')
})

for (const point of [
  'state.commit=images deleted',
  'storage.discard',
  'storage.discard#2',
  'storage.discard#3',
  'os.spawn=*/rm',
]) {
  test(`SIGKILL in a collection, at ${point}: what is used stays, and the next one ends it`, async () => {
    const { daemon } = kubelet()
    const { root, registry } = daemon
    const file = (content: string) => [{ name: 'own', content: `${point} ${content}` }]
    for (const name of ['one', 'two']) {
      registry.push(
        await busyboxImage({ extraLayers: [file('both'), file(name)] }),
        `quay.io/gc/${name}`,
        '1',
      )
      await kubelet().pull(`quay.io/gc/${name}:1`)
    }
    const pod = await kubelet().runPod()
    const held = await kubelet().run(pod, FOREVER)
    await until('nothing else is to be deleted', () => readdirSync(join(root, 'trash')).length === 0)
    await daemon.restart({ BERTH_FAULTS: `kill@${point}` })
    // The answer may be there before what it is about.
    await daemon.berth('image', 'gc', '--prune')
    await crashed(daemon)
    await daemon.up()
    assert.equal((await kubelet().exec(held, 'ls /bin/busybox')).code, 0)
    assert.match(await berth('gc', '--prune'), /deleted|nothing to delete/)
    assert.match(await berth('gc', '--dry-run', '--prune'), /^nothing to delete/)
    assert.deepEqual(
      [await imageId('quay.io/gc/one:1'), await imageId('quay.io/gc/two:1')],
      [undefined, undefined],
    )
    assert.equal(await imageId(BUSYBOX), (await busyboxImage()).id)
    await until('the layers are gone', () => readdirSync(join(root, 'layers')).length === 1)
    assert.equal(readdirSync(join(root, 'records')).length, 1)
    assert.match(await berth('verify'), /layers: 1 whole/)
    assert.equal((await daemon.berth('check')).code, 0)
  })
}
