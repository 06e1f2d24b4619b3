import assert from 'node:assert/strict'
import { rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const RUNC = '/usr/sbin/runc'

/** Programs of the handlers, as links that tests take away and put back. */
const programs = { main: '', late: '' }

const kubelet = useDaemon({
  config: directory => {
    programs.main = join(directory, 'main')
    programs.late = join(directory, 'late')
    symlinkSync(RUNC, programs.main)
    const sick = join(directory, 'sick')
    writeFileSync(sick, '#!/bin/sh\necho no library >&2\nexit 127\n', { mode: 0o755 })
    const handler = (name: string, path: string, more = '') =>
      `[crio.runtime.runtimes.${name}]\nruntime_path = "${path}"\n${more}`
    return [
      '[crio.runtime]\ndefault_runtime = "main"\n',
      handler('main', programs.main),
      handler('late', programs.late),
      handler('sick', sick),
      handler('unwatched', RUNC, 'monitor_path = "/no/conmon"\n'),
    ].join('')
  },
})

async function runtimeReady() {
  const { status } = await kubelet().daemon.client.runtime('Status', {})
  return status!.conditions.find(({ type }) => type === 'RuntimeReady')!
}

/** By name, as the verbose status has them; '' is no problem. */
async function problems(): Promise<Record<string, string>> {
  const { info } = await kubelet().daemon.client.runtime('Status', { verbose: true })
  const { handlers } = JSON.parse(info.config!) as { handlers: Array<{ name: string; problem: string }> }
  return Object.fromEntries(handlers.map(({ name, problem }) => [name, problem]))
}

/** What is said of a handler whose program is not there. */
const missing = (name: string) =>
  new RegExp(`runtime handler ${name} is not available: cannot start .*/${name}: no such program`)

test('a handler without its programs is not available, and says why wherever one looks; the others are', async () => {
  const { daemon } = kubelet()
  const { main, late, sick, unwatched } = await problems()
  assert.equal(main, '')
  assert.match(late!, missing('late'))
  assert.match(sick!, /^runtime handler sick is not available: .*got: no library \(exit code 127\)/)
  assert.match(unwatched!, /^runtime handler unwatched is not available: cannot start \/no\/conmon/)
  const { stdout } = await daemon.berth('status')
  assert.match(stdout, /^runtimes +main \(runc .*\), late \(not available\), sick \(not available\)/m)
  for (const problem of [late!, sick!, unwatched!]) {
    assert.ok(stdout.includes(problem), stdout)
    assert.ok(daemon.log.includes(problem))
  }
  for (const [name, problem] of Object.entries({ late, sick, unwatched })) {
    await assert.rejects(kubelet().runPod({}, name), { code: 'precondition', message: problem })
  }
  assert.equal((await runtimeReady()).status, true)
  const { runtime_handlers } = await daemon.client.runtime('Status', {})
  const features = new Map(runtime_handlers.map(({ name, features }) => [name, features]))
  assert.deepEqual(features.get('late'), { recursive_read_only_mounts: false, user_namespaces: false })
  const pod = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
})

test('a handler works once its program is there, and what it made can be removed when it is gone again', async () => {
  const { daemon } = kubelet()
  symlinkSync(RUNC, programs.late)
  const pod = await kubelet().runPod({}, 'late')
  assert.equal((await problems()).late, '')
  const [running, created] = [await kubelet().run(pod, FOREVER), await kubelet().create(pod, FOREVER)]
  rmSync(programs.late)
  await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', missing('late')))
  await assert.rejects(kubelet().create(pod, FOREVER), failure('precondition', missing('late')))
  await assert.rejects(kubelet().runPod({}, 'late'), failure('precondition', missing('late')))
  const { containers } = await daemon.client.runtime('ListContainers', {})
  assert.deepEqual(containers.map(({ id }) => id).sort(), [running, created].sort())
  await kubelet().stop(running)
  assert.equal((await kubelet().status(running)).state, 'CONTAINER_EXITED')
  await kubelet().remove(running)
  await kubelet().removePod(pod.id)
  assert.deepEqual((await daemon.client.runtime('ListContainers', {})).containers, [])
})

test('a shared PID namespace goes with its pod when the runtime that made its init is gone', async () => {
  symlinkSync(RUNC, programs.late)
  const pod = await kubelet().runPodWith({ pid: 'POD' })
  const late = await kubelet().runPod(
    { linux: { security_context: { namespace_options: { pid: 'POD' } } } },
    'late',
  )
  rmSync(programs.late)
  await kubelet().removePod(late.id)
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
})

test('without the default handler the daemon serves, says it is not ready, and heals', async () => {
  const { daemon } = kubelet()
  symlinkSync(RUNC, programs.late)
  const [ofMain, ofLate] = [await kubelet().runPod(), await kubelet().runPod({}, 'late')]
  const [running, created] = [await kubelet().run(ofMain, FOREVER), await kubelet().create(ofMain, FOREVER)]
  const other = await kubelet().run(ofLate, FOREVER)
  rmSync(programs.main)
  await daemon.restart()
  const condition = await runtimeReady()
  assert.deepEqual([condition.status, condition.reason], [false, 'RuntimeHandlerUnavailable'])
  assert.match(condition.message, missing('main'))
  assert.match((await daemon.berth('status')).stdout, /^runtime +not ready: RuntimeHandlerUnavailable: /m)
  await assert.rejects(kubelet().runPod(), failure('precondition', missing('main')))
  for (const id of [running, other]) assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(other, 'echo works')).stdout, 'works\n')
  // Whether it was started meanwhile, only its runtime knows.
  assert.equal((await kubelet().status(created)).state, 'CONTAINER_UNKNOWN')
  await kubelet().stop(created)
  await kubelet().remove(created)
  await kubelet().stop(running)
  assert.equal((await kubelet().status(running)).exit_code, 137)
  await kubelet().removePod(ofMain.id)
  symlinkSync(RUNC, programs.main)
  process.kill(daemon.pid, 'SIGHUP')
  await until('the default handler is available', async () => (await runtimeReady()).status)
  assert.match(daemon.log, /a runtime handler is available again/)
  const again = await kubelet().runPod()
  assert.equal(await kubelet().outputOf(again, 'echo works'), 'works')
  rmSync(programs.late)
  process.kill(daemon.pid, 'SIGHUP')
  await until('its loss is noticed', async () => (await problems()).late !== '')
})
