import assert from 'node:assert/strict'
import { mkdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { SCHEMA_VERSION } from '../../src/state/schema.ts'
import { BerthDaemon } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, Kubelet } from '../support/kubelet.ts'
import { makeOldDatabase } from '../support/old-database.ts'

for (let version = 1; version <= SCHEMA_VERSION; version++) {
  test(`schema ${version}: what a node had before its boot is told as ended, and removed`, async () => {
    await using daemon = await BerthDaemon.start({ label: 'past' })
    await daemon.stop()
    rmSync(daemon.root, { recursive: true })
    mkdirSync(daemon.root, { mode: 0o711 })
    makeOldDatabase(join(daemon.root, 'berth.db'), version, basename(daemon.directory))
    await daemon.up()
    const past = new Kubelet(daemon)
    const { items } = await daemon.client.runtime('ListPodSandbox', {})
    const { containers } = await daemon.client.runtime('ListContainers', {})
    // Begun and half removed ones are gone.
    assert.deepEqual([items.length, containers.length], [4, 7])
    assert.deepEqual(new Set(items.map(pod => pod.state)), new Set(['SANDBOX_NOTREADY']))
    const ends = await Promise.all(containers.map(({ id }) => past.status(id)))
    assert.deepEqual(new Set(ends.map(end => end.state)), new Set(['CONTAINER_EXITED']))
    assert.deepEqual(ends.map(end => end.exit_code).sort(), [137, 255, 255, 255, 255, 255, 3])
    assert.deepEqual((await daemon.client.image('ListImages', {})).images, [], 'their layers are not there')
    daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
    await past.pull(BUSYBOX)
    const pod = await past.runPod()
    assert.equal(await past.outputOf(pod, 'echo works'), 'works')
    await past.removeAll()
    assert.deepEqual(await daemon.leftovers(), [])
  })
}
