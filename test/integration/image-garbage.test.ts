import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
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
