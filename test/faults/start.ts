import assert from 'node:assert/strict'
import { sleep } from '../../src/base/clock.ts'
import { BerthError } from '../../src/base/errors.ts'
import { footprint } from '../support/footprint.ts'
import { FOREVER } from '../support/kubelet.ts'
import { until } from '../support/wait.ts'
import type { Attempt } from './operations.ts'
import { pushImage } from './push-image.ts'
import { makeStrays } from './repair.ts'
import type { FaultRig } from './rig.ts'

/** The operations that are broken off, each where others cannot see it: a container's create by the undo it then hangs in. */
const BROKEN_OFF = [
  'hang@os.remove-tree',
  'hang@network.cni-add=portmap*',
  'hang@os.syncfs',
  'fail@os.spawn=*conmon',
].join(',')

/** What tells that each of them is where it is to be broken off. */
const INTENTS = [
  /^pod row creating/,
  /^container row creating/,
  /^container row removing/,
  /^unfinished layer/,
  /^file .*\/execs\/[^/]+\/process.json/,
]

/** The start of a daemon whose predecessor was killed while it did everything at once. */
export async function startAfterKill(rig: FaultRig): Promise<Attempt> {
  const { daemon, kubelet } = rig
  const pod = await kubelet.runPod()
  const lives = await kubelet.run(pod, FOREVER)
  const ends = await kubelet.run(pod, FOREVER)
  const { pid } = await kubelet.containerInfo(ends)
  const waits = await kubelet.create(pod, 'exit 7')
  const removed = await kubelet.run(pod, 'exit 3')
  await kubelet.exited(removed)
  await rig.quiet()
  const { name } = await pushImage(rig)

  rig.plan(BROKEN_OFF)
  const calls = [
    kubelet.runPod(),
    kubelet.create(pod, 'exit 9'),
    daemon.client.runtime('RemoveContainer', { container_id: removed }),
    kubelet.pull(name),
    kubelet.exec(lives, FOREVER, 1000),
  ]
  const settled = Promise.allSettled(calls)
  await until('everything is under way', async () => {
    const lines = [...(await footprint(daemon))]
    return INTENTS.every(intent => lines.some(line => intent.test(line)))
  })
  await daemon.kill9()
  await settled
  rig.plan('')
  // It ends while nobody looks.
  process.kill(pid, 'SIGKILL')
  makeStrays(daemon)

  const up = async () => {
    if (!(await serves(rig))) await start(rig)
  }
  return {
    isStart: true,
    call: up,
    retry: up,
    async check() {
      const { containers } = await daemon.client.runtime('ListContainers', {})
      assert.deepEqual(containers.map(({ id }) => id).sort(), [lives, ends, waits].sort())
      // The half-made pod is there if undoing it failed: for the client, who removes what is not ready.
      const { items } = await daemon.client.runtime('ListPodSandbox', {})
      assert.ok(items.length <= 2)
      for (const { id, state } of items) {
        assert.equal(state, id === pod.id ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY')
      }
      assert.ok(items.some(({ id }) => id === pod.id))
      assert.equal((await kubelet.exec(lives, 'echo lives')).stdout, 'lives\n')
      assert.equal((await kubelet.exited(ends)).exit_code, 137)
      await kubelet.start(waits)
      assert.equal((await kubelet.exited(waits)).exit_code, 7)
      await kubelet.pull(name)
    },
  }
}

/** Calls are answered. */
export async function serves({ daemon }: FaultRig): Promise<boolean> {
  try {
    await daemon.client.runtime('Version', {})
    return true
  } catch {
    return false
  }
}

/** @throws BerthError unavailable if it is killed, else with the last words of a daemon that gave up */
async function start({ daemon }: FaultRig): Promise<void> {
  try {
    await daemon.up()
  } catch {
    const code = await Promise.race([daemon.ended, sleep(1000)])
    if (code === -1) throw new BerthError('unavailable', 'the daemon was killed')
    assert.notEqual(code, undefined, 'a start that does not come to an end')
    throw new BerthError('internal', daemon.log.trimEnd().split('\n').at(-1) ?? '')
  }
}
