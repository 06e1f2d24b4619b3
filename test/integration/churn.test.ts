import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Semaphore } from '../../src/base/semaphore.ts'
import { differences } from '../support/check.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'

const PODS = 20
const AT_A_TIME = 8

const kubelet = useDaemon()

/** One life: up, seen by everybody, in use, down. */
async function life(): Promise<string> {
  const pod = await kubelet().runPod()
  const ip = await kubelet().podIp(pod)
  const [id] = await Promise.all([kubelet().run(pod, FOREVER), kubelet().run(pod, 'echo done')])
  assert.equal((await kubelet().exec(id, 'hostname -i | grep -o . | head -1; hostname')).code, 0)
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {
    filter: { pod_sandbox_id: pod.id },
  })
  assert.equal(containers.length, 2)
  await kubelet().stop(id)
  await kubelet().removePod(pod.id)
  return ip
}

/** What `berth check` finds, again and again, beside everything else. */
async function looksUntil(isOver: () => boolean): Promise<string[]> {
  const found: string[] = []
  while (!isOver()) found.push(...(await differences(kubelet().daemon)))
  return found
}

for (const round of ['first', 'second', 'third']) {
  test(`${PODS} pods, ${AT_A_TIME} at a time, come and go without a trace: ${round} round`, async () => {
    const slots = new Semaphore('pods', AT_A_TIME)
    const lives = Array.from({ length: PODS }, () => slots.run(life))
    let isOver = false
    const checks = looksUntil(() => isOver)
    const ips = await Promise.all(lives).finally(() => {
      isOver = true
    })
    assert.deepEqual(await checks, [], 'operations under way are no differences')
    assert.ok(ips.every(ip => ip.startsWith(kubelet().daemon.subnet)))
    const { items } = await kubelet().daemon.client.runtime('ListPodSandbox', {})
    assert.deepEqual(items, [])
    await kubelet().removeAll()
    assert.deepEqual(await kubelet().daemon.leftovers(), [])
  })
}
