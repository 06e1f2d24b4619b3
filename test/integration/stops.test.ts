import assert from 'node:assert/strict'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const IGNORES_TERM = `trap '' TERM; echo ready; ${FOREVER} & wait`

/** Of the runtime below: made when a start has begun, and what lets it go on. */
const gate = { begun: '', open: '' }

/** runc, whose `start` waits at the gate. */
function runtimeThatWaits(directory: string): string {
  const path = join(directory, 'waiting')
  Object.assign(gate, { begun: join(directory, 'begun'), open: join(directory, 'open') })
  const wait = `*" start "*) : >${gate.begun}; while [ ! -e ${gate.open} ]; do sleep 0.02; done`
  writeFileSync(path, `#!/bin/sh\ncase " $* " in ${wait};; esac\nexec /usr/sbin/runc "$@"\n`, { mode: 0o755 })
  return `[crio.runtime.runtimes.waiting]\nruntime_path = "${path}"\n`
}

const kubelet = useDaemon({ config: runtimeThatWaits })

/** A container whose start has begun and does not end before the gate is opened. */
async function starting(): Promise<{ id: string; started: Promise<void> }> {
  for (const file of Object.values(gate)) rmSync(file, { force: true })
  const id = await kubelet().create(await kubelet().runPod({}, 'waiting'), FOREVER)
  const started = kubelet().start(id)
  await until('the start has begun', () => existsSync(gate.begun))
  return { id, started }
}

test('stop: the signal, the grace period, then the end of everything', async () => {
  const pod = await kubelet().runPod()
  const polite = await kubelet().run(pod, `trap 'echo bye; exit 7' TERM; echo ready; ${FOREVER} & wait`)
  await kubelet().prints(polite, 'ready')
  await kubelet().stop(polite, 30)
  const ended = await kubelet().status(polite)
  assert.deepEqual([ended.state, ended.exit_code, ended.reason], ['CONTAINER_EXITED', 7, 'Error'])
  assert.ok((await kubelet().logOf(polite)).some(line => line.text === 'bye'))
  const stubborn = await kubelet().run(pod, `trap '' TERM; echo ready; ${FOREVER} & wait`)
  await kubelet().prints(stubborn, 'ready')
  await kubelet().stop(stubborn, 1)
  assert.equal((await kubelet().status(stubborn)).exit_code, 137)
  await kubelet().stop(stubborn, 1)
})

test('stop: with a shared PID namespace the children go too', async () => {
  const pod = await kubelet().runPodWith({ pid: 'POD' })
  const id = await kubelet().run(pod, `setsid sleep 100011 & echo $!; ${FOREVER}`)
  const other = await kubelet().run(pod, FOREVER)
  await until('the child runs', async () =>
    (await kubelet().exec(other, 'pgrep -f x; cat /proc/[0-9]*/cmdline')).stdout.includes('100011'),
  )
  await kubelet().stop(id)
  assert.doesNotMatch((await kubelet().exec(other, 'cat /proc/[0-9]*/cmdline')).stdout, /100011/)
})

test('the stop signal is the request’s, else the image’s', async () => {
  const pod = await kubelet().runPod()
  const usr1 = await kubelet().image('usr1', { stopSignal: 'SIGUSR1' })
  const trap = `trap 'exit 11' USR1; trap 'exit 12' INT; echo ready; ${FOREVER} & wait`
  const byImage = await kubelet().run(pod, trap, { image: { image: usr1 } })
  await kubelet().prints(byImage, 'ready')
  assert.equal((await kubelet().status(byImage)).stop_signal, 'SIGUSR1')
  await kubelet().stop(byImage, 30)
  assert.equal((await kubelet().status(byImage)).exit_code, 11)
  const byRequest = await kubelet().run(pod, trap, { image: { image: usr1 }, stop_signal: 'SIGINT' })
  await kubelet().prints(byRequest, 'ready')
  await kubelet().stop(byRequest, 30)
  assert.equal((await kubelet().status(byRequest)).exit_code, 12)
})

test('stop: each further call may only shorten the time that is left, again and again', async () => {
  const id = await kubelet().run(await kubelet().runPod(), IGNORES_TERM)
  await kubelet().prints(id, 'ready')
  const stops: Array<Promise<void>> = []
  for (const timeout of [7200, 3600, 1800, 9000]) {
    stops.push(kubelet().stop(id, timeout))
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  }
  await kubelet().stop(id, 1)
  await Promise.all(stops)
  const { state, exit_code } = await kubelet().status(id)
  assert.deepEqual([state, exit_code], ['CONTAINER_EXITED', 137])
})

test('stop: a container that was never started ends at once, whatever its time, and starts no more', async () => {
  const id = await kubelet().create(await kubelet().runPod(), IGNORES_TERM)
  await kubelet().stop(id, 3600)
  const { state, exit_code, started_at, finished_at } = await kubelet().status(id)
  assert.deepEqual([state, exit_code, started_at], ['CONTAINER_EXITED', 137, '0'])
  assert.ok(BigInt(finished_at) > 0n)
  await assert.rejects(kubelet().start(id), failure('precondition', /exited; only a created one/))
  await kubelet().stop(id, 3600)
  await kubelet().remove(id)
})

test('stop: one that is just starting is started, then stopped', async () => {
  const { id, started } = await starting()
  let stopped = false
  const stop = kubelet()
    .stop(id, 0)
    .then(() => {
      stopped = true
    })
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_CREATED')
  assert.equal(stopped, false)
  writeFileSync(gate.open, '')
  await Promise.all([started, stop])
  const { state, exit_code, started_at } = await kubelet().status(id)
  assert.deepEqual([state, exit_code], ['CONTAINER_EXITED', 137])
  assert.notEqual(started_at, '0')
})

test('remove: one that is just starting goes, and its pod with it', async () => {
  const { id, started } = await starting()
  const outcome = Promise.allSettled([started, kubelet().remove(id)])
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_CREATED')
  writeFileSync(gate.open, '')
  assert.deepEqual(
    (await outcome).map(({ status }) => status),
    ['fulfilled', 'fulfilled'],
  )
  assert.deepEqual((await kubelet().daemon.client.runtime('ListContainers', {})).containers, [])
})

test('stop: one that was just starting when the daemon was killed', async () => {
  const { id, started } = await starting()
  started.catch(() => undefined)
  await kubelet().daemon.restart()
  writeFileSync(gate.open, '')
  await kubelet().stop(id, 0)
  await assert.rejects(started)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
})
