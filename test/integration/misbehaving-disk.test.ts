/** A disk that fails below the root directory, and a database that is damaged. See docs/reliability.md. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { failure } from '../support/cni.ts'
import { command, output } from '../support/command.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20

function mountDisk(directory: string): void {
  const options = ['-o', 'loop,errors=remount-ro']
  execFileSync('mount', [...options, join(directory, 'disk.img'), join(directory, 'state')])
}

/** The root directory is a disk of its own. */
const kubelet = useDaemon({
  label: 'disk',
  config: directory => {
    const image = join(directory, 'disk.img')
    writeFileSync(image, '')
    truncateSync(image, 256 * MIB)
    execFileSync('mkfs.ext4', ['-q', '-F', image])
    execFileSync('mkdir', [join(directory, 'state')])
    mountDisk(directory)
    return ''
  },
})

/** As when its journal could not be written: from now on it is read-only. */
async function breakDisk(root: string): Promise<void> {
  const device = (await output('findmnt', '-n', '-o', 'SOURCE', root)).trim()
  writeFileSync(`/sys/fs/ext4/${basename(device)}/trigger_fs_error`, 'a test')
}

async function runtimeCondition() {
  const { status } = await kubelet().daemon.client.runtime('Status', {})
  return status?.conditions.find(({ type }) => type === 'RuntimeReady')
}

test('a root that turns read-only: the node is not ready and says why, what runs goes on, and all is known after the repair', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const ids = [await kubelet().run(pod, FOREVER), await kubelet().run(pod, FOREVER)] as const
  const [lives, stopped] = ids
  const { pid } = await kubelet().containerInfo(stopped)
  const before = await kubelet().podStatus(pod.id)
  assert.equal((await runtimeCondition())?.status, true)
  await breakDisk(daemon.root)

  const says = failure('internal', /the database .*\/berth\.db cannot be written: /)
  await assert.rejects(kubelet().runPod(), says)
  await assert.rejects(kubelet().create(pod, FOREVER), says)
  await assert.rejects(kubelet().removePod(pod.id), says)
  assert.equal((await kubelet().exec(lives, 'echo on')).stdout, 'on\n')
  await assert.rejects(kubelet().stop(stopped), says)
  await until('it was killed all the same', () => !isRunning(pid))
  await assert.rejects(kubelet().stop(stopped), says)
  const condition = await runtimeCondition()
  assert.equal(condition?.status, false)
  assert.equal(condition.reason, 'DatabaseNotWritable')
  assert.match(condition.message, /the database .*\/berth\.db cannot be written: /)
  assert.match((await daemon.berth('status')).stdout, /not ready: .*cannot be written/)
  const told = daemon.log.match(/the exit of a container could not be recorded/g)?.length
  assert.equal(told, 1, 'once a minute')

  // What an operator does: everything off the disk, which is not mounted any more, fsck, and on again.
  await daemon.powerOff()
  const image = join(daemon.directory, 'disk.img')
  await until('nothing uses it any more', async () => (await output('losetup', '-j', image)) === '')
  const { code, stdout } = await command('fsck.ext4', ['-fp', image])
  assert.equal(code, 1, `it was mended: ${stdout}`)
  mountDisk(daemon.directory)
  await daemon.up()
  assert.equal((await runtimeCondition())?.status, true)
  const after = await kubelet().podStatus(pod.id)
  assert.deepEqual([after.state, after.labels], ['SANDBOX_NOTREADY', before.labels])
  for (const id of ids) assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
  const again = { ...pod.config, metadata: { ...pod.config.metadata, attempt: 1 } }
  const next = { id: await kubelet().runPodAs(again), config: again }
  assert.equal(await kubelet().outputOf(next, 'echo works'), 'works')
})

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
