import assert from 'node:assert/strict'
import { BerthError } from '../../src/base/errors.ts'
import type { Attempt } from './operations.ts'
import { makeStrays } from './repair.ts'
import type { FaultRig } from './rig.ts'
import { serves } from './start.ts'

/** Ends when it is asked to: a wipe waits as long for those that do not as kubelet would. */
const WAITING = 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'

/** As `command` has it of a process that a signal ended. */
const KILLED = 128

/** `berth wipe --containers`, which leaves the images that the other cases stand on. */
export async function wipe(rig: FaultRig): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const pod = await kubelet.runPod({ port_mappings: [{ container_port: 80, host_port: 18_063 }] })
  await kubelet.run(pod, WAITING)
  await kubelet.exited(await kubelet.run(pod, 'exit 3'))
  await kubelet.create(await kubelet.runPod(), WAITING)
  await rig.quiet()
  makeStrays(daemon)

  const run = async () => {
    await daemon.kill9()
    const flags = ['--containers', '--force', '--yes']
    const { code, stderr } = await daemon.offline(['wipe', ...flags], rig.env)
    if (code === KILLED) throw new BerthError('unavailable', 'the command was killed')
    if (code !== 0) throw new BerthError('internal', stderr)
  }
  return {
    isOffline: true,
    call: run,
    retry: run,
    async check() {
      if (!(await serves(rig))) await daemon.up()
      assert.deepEqual((await daemon.client.runtime('ListPodSandbox', {})).items, [])
      assert.deepEqual((await daemon.client.runtime('ListContainers', {})).containers, [])
    },
  }
}
