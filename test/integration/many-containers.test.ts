import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Semaphore } from '../../src/base/semaphore.ts'
import type { Container__Output } from '../../src/cri/generated/runtime/v1/Container.ts'
import { differences } from '../support/check.ts'
import { useDaemon } from '../support/use-daemon.ts'

/*
 * A node that its kubelet has not cleaned for long: many containers have ended and are still told of.
 */

const PODS = 20
const EACH = 50
const AT_A_TIME = 8

const kubelet = useDaemon()

async function list(filter = {}): Promise<Container__Output[]> {
  return (await kubelet().daemon.client.runtime('ListContainers', { filter })).containers
}

test(`${PODS * EACH} containers are listed, each once, by any filter, and again by the daemon that comes after a kill`, async t => {
  const slots = new Semaphore('containers', AT_A_TIME)
  const pods = await Promise.all(Array.from({ length: PODS }, () => slots.run(() => kubelet().runPod())))
  const ids = await Promise.all(
    pods.flatMap(pod =>
      Array.from({ length: EACH }, (_, index) =>
        slots.run(async () => {
          const labels = { index: String(index) }
          const id = await kubelet().run(pod, `exit ${index}`, { labels })
          await kubelet().exited(id)
          return id
        }),
      ),
    ),
  )
  const expected = ids.toSorted()
  const idsOf = (containers: readonly Container__Output[]) => containers.map(({ id }) => id).toSorted()
  const check = async () => {
    const all = await list()
    assert.deepEqual(idsOf(all), expected)
    assert.ok(all.every(({ state }) => state === 'CONTAINER_EXITED'))
    assert.deepEqual(idsOf(await list({ state: { state: 'CONTAINER_EXITED' } })), expected)
    assert.deepEqual(await list({ state: { state: 'CONTAINER_RUNNING' } }), [])
    assert.equal((await list({ pod_sandbox_id: pods[0]!.id })).length, EACH)
    assert.equal((await list({ label_selector: { index: '7' } })).length, PODS)
    assert.deepEqual(idsOf(await list({ id: ids[500]! })), [ids[500]])
    assert.equal((await kubelet().status(ids[EACH - 1]!)).exit_code, EACH - 1)
    return all
  }
  const bytes = JSON.stringify(await check()).length
  await kubelet().daemon.kill9()
  await kubelet().daemon.up()
  await check()
  const looks: number[] = []
  for (let look = 0; look < 20; look++) {
    const started = performance.now()
    await list()
    looks.push(performance.now() - started)
  }
  const middle = looks.toSorted((a, b) => a - b)[looks.length / 2]!
  t.diagnostic(`ListContainers: ${middle.toFixed(1)} ms, ${Math.round(bytes / 1024)} KiB as JSON`)
  assert.deepEqual(await differences(kubelet().daemon), [])
  await Promise.all(pods.map(pod => slots.run(() => kubelet().removePod(pod.id))))
  assert.deepEqual(await list(), [])
})
