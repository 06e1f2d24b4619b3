import assert from 'node:assert/strict'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SCHEMA_VERSION } from '../../src/state/schema.ts'
import { differences } from '../support/check.ts'
import { BUSYBOX, FOREVER } from '../support/kubelet.ts'
import { takeBack } from '../support/old-database.ts'
import { useDaemon } from '../support/use-daemon.ts'

/*
 * docs/upgrades.md, "Going back", step by step. The version that is gone back to is this build again: it reads the copy
 * as that version would, and what a copy does not know is what this is about.
 */

const kubelet = useDaemon()

test('going back to the copy from before an upgrade: what it knows goes on, what was made since ends, what was removed since can be removed', async () => {
  const { daemon } = kubelet()
  const kept = await kubelet().runPod()
  const running = await kubelet().run(kept, FOREVER)
  const removed = await kubelet().runPod()
  await kubelet().run(removed, FOREVER)
  const { pid } = await kubelet().containerInfo(running)
  const database = join(daemon.root, 'berth.db')
  const copy = `${database}.schema-${SCHEMA_VERSION - 1}`
  await daemon.stop()
  takeBack(database, SCHEMA_VERSION - 1)
  await daemon.up()
  assert.ok(existsSync(copy), 'the upgrade keeps a copy')

  await kubelet().removePod(removed.id)
  const image = await kubelet().image('since-then', { files: { '/etc/motd': 'new' } })
  const made = await kubelet().runPod()
  const young = await kubelet().run(made, FOREVER, { image: { image } })
  const late = await kubelet().run(kept, FOREVER)
  const since = await Promise.all([young, late].map(async id => (await kubelet().containerInfo(id)).pid))

  await daemon.stop()
  for (const suffix of ['-wal', '-shm']) rmSync(`${database}${suffix}`, { force: true })
  renameSync(copy, database)
  await daemon.up()

  assert.equal((await kubelet().containerInfo(running)).pid, pid)
  assert.equal((await kubelet().exec(running, 'echo on')).stdout, 'on\n')
  for (const gone of since) assert.equal(existsSync(`/proc/${gone}`), false)
  const { items } = await daemon.client.runtime('ListPodSandbox', {})
  const states = new Map(items.map(({ id, state }) => [id, state]))
  assert.deepEqual(
    states,
    new Map([
      [kept.id, 'SANDBOX_READY'],
      [removed.id, 'SANDBOX_NOTREADY'],
    ]),
  )
  const { containers } = await daemon.client.runtime('ListContainers', {})
  assert.equal(containers.find(({ id }) => id === running)?.state, 'CONTAINER_RUNNING')
  assert.equal(containers.length, 2)
  const { images } = await daemon.client.image('ListImages', {})
  assert.deepEqual(
    images.flatMap(({ repo_tags }) => repo_tags),
    [BUSYBOX],
  )
  await kubelet().pull(image)
  const again = await kubelet().run(await kubelet().runPod(), FOREVER, { image: { image } })
  assert.equal((await kubelet().exec(again, 'cat /etc/motd')).stdout, 'new')
  await kubelet().removePod(removed.id)
  assert.deepEqual(await differences(daemon), [])
})
