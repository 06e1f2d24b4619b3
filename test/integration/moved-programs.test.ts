import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isAlive, processesWithArguments } from '../../src/os/processes.ts'
import { createRuntime } from '../../src/runtime/runc.ts'
import { FOREVER } from '../support/kubelet.ts'
import { eventually, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

/*
 * Programs that are somewhere else after an upgrade, while what they started at their former place runs on.
 */

const CONMON = '/usr/bin/conmon'
const RUNC = '/usr/sbin/runc'

const host = useRuntimeHost()
const kubelet = useDaemon()

/** Its program is a script that waits where `when` holds for its arguments, until the file beside it is gone. */
function waiting(directory: string, program: string, when: string): { path: string; go: () => void } {
  mkdirSync(directory, { recursive: true })
  const path = join(directory, program.slice(program.lastIndexOf('/') + 1))
  const held = `${path}.held`
  writeFileSync(held, '')
  writeFileSync(
    path,
    `#!/bin/sh\n${when} && while [ -e ${held} ]; do sleep 0.05; done\nexec ${program} "$@"\n`,
  )
  chmodSync(path, 0o755)
  return { path, go: () => rmSync(held) }
}

function linked(directory: string, ...programs: readonly string[]): string {
  mkdirSync(directory, { recursive: true })
  for (const program of programs) {
    symlinkSync(program, join(directory, program.slice(program.lastIndexOf('/') + 1)))
  }
  return directory
}

test('a monitor from another place that has not said who it is yet is found, and ended with what it runs', async () => {
  const former = waiting(join(host.root, 'former'), CONMON, 'case $1 in --version) false;; esac')
  const before = await createRuntime(host.options({ conmonPath: former.path }))
  const container = host.container(uniqueSleep())
  const created = before.create(host.request(container))
  created.catch(() => undefined)
  const monitors = () => processesWithArguments('--exit-dir', container.id)
  await eventually('the monitor is at work', () => monitors().length > 0)
  const [monitor] = monitors()
  await host.runtime.remove(container.id, container.paths)
  assert.equal(isAlive(monitor!), false)
  former.go()
  await assert.rejects(created, /conmon/)
  assert.deepEqual(monitors(), [])
})

test('a start that a runtime at another place was given is waited for', async () => {
  const former = waiting(
    join(host.root, 'former-runtime'),
    RUNC,
    'case " $* " in *" start "*) ;; *) false;; esac',
  )
  const before = await createRuntime(host.options({ runtimePath: former.path }))
  const container = host.container('exit 6')
  await before.create(host.request(container))
  const started = before.start(container.id, container.paths)
  const left = await eventually('the start is seen', () => host.runtime.leftStarts().get(container.id))
  // The monitor of the container has the runtime's arguments among its own, and is none.
  assert.deepEqual([...host.runtime.leftStarts().keys()], [container.id])
  former.go()
  await left.ended()
  await started
  const exit = await eventually('it has ended', () => host.runtime.readExit(container.id, container.paths))
  assert.equal(exit.code, 6)
  assert.equal(host.runtime.leftStarts().size, 0)
})

test('a monitor that was installed elsewhere later is found', async () => {
  let conmonPath = '/no/conmon'
  const runtime = await createRuntime(host.options({ conmonPath, findConmon: () => conmonPath }))
  assert.match(runtime.problem ?? '', /cannot start \/no\/conmon: no such program/)
  conmonPath = CONMON
  await runtime.probe()
  assert.equal(runtime.problem, undefined)
  const container = host.container('exit 4')
  await runtime.create(host.request(container))
  await runtime.start(container.id, container.paths)
  const exit = await eventually('it has ended', () => runtime.readExit(container.id, container.paths))
  assert.equal(exit.code, 4)
})

/** The daemon is killed, and finds its programs in that directory alone when it is there again. */
async function killedAndUp(directory: string): Promise<void> {
  await kubelet().daemon.restart({ PATH: `${directory}:/usr/sbin:/usr/bin:/sbin:/bin` })
}

test('monitor and runtime are elsewhere at the next start: what they made is followed, logged, stopped and removed', async () => {
  const { daemon } = kubelet()
  const former = linked(join(daemon.directory, 'former'), CONMON, RUNC)
  await killedAndUp(former)
  const pod = await kubelet().runPod()
  const talking = await kubelet().run(
    pod,
    `trap 'exit 5' TERM; echo one; while :; do sleep 0.1; echo more; done`,
  )
  const ending = await kubelet().run(pod, 'while ! [ -e /end ]; do sleep 0.1; done; exit 9')
  const created = await kubelet().create(pod, 'echo started; exit 3')
  await kubelet().prints(talking, 'one')
  const { log_path } = await kubelet().status(talking)
  const monitors = processesWithArguments(talking)
  assert.ok(monitors.length > 0)
  assert.ok(
    processesWithArguments(join(former, 'conmon'), talking).length > 0,
    'the monitor is of the former place',
  )

  rmSync(former, { recursive: true })
  const now = linked(join(daemon.directory, 'now'), CONMON, RUNC)
  await killedAndUp(now)
  assert.equal((await kubelet().status(talking)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().status(created)).state, 'CONTAINER_CREATED')
  assert.deepEqual(
    processesWithArguments(talking).map(({ pid }) => pid),
    monitors.map(({ pid }) => pid),
  )
  assert.deepEqual((await daemon.berth('check')).code, 0)

  assert.equal((await kubelet().exec(ending, 'touch /end; echo done')).stdout, 'done\n')
  assert.equal((await kubelet().exited(ending)).exit_code, 9)
  await kubelet().start(created)
  assert.equal((await kubelet().exited(created)).exit_code, 3)
  rmSync(log_path)
  await daemon.client.runtime('ReopenContainerLog', { container_id: talking })
  await kubelet().prints(talking, 'more')
  await daemon.client.runtime('StopContainer', { container_id: talking, timeout: '20' })
  assert.equal((await kubelet().exited(talking)).exit_code, 5)
  const next = await kubelet().run(pod, FOREVER)
  assert.equal(processesWithArguments(join(now, 'conmon'), join(now, 'runc'), next).length, 1)
  await kubelet().removePod(pod.id)
  await until('the monitors are gone', async () => monitors.every(monitor => !isAlive(monitor)))
  await daemon.restart()
})

test('the daemon is killed in CreateContainer, and its monitor is elsewhere at the next start: nothing is left', async () => {
  const { daemon } = kubelet()
  const former = waiting(join(daemon.directory, 'slow'), CONMON, 'case $1 in --version) false;; esac')
  await killedAndUp(join(daemon.directory, 'slow'))
  const pod = await kubelet().runPod()
  const call = kubelet().create(pod, FOREVER)
  call.catch(() => undefined)
  const atWork = () => processesWithArguments(former.path, '--exit-dir')
  await until('its monitor is at work', async () => atWork().length > 0)
  const [monitor] = atWork()
  await daemon.kill9()
  await assert.rejects(call)
  rmSync(former.path)
  await daemon.up()
  await until('it was ended', async () => !isAlive(monitor!))
  former.go()
  assert.deepEqual((await daemon.client.runtime('ListContainers', {})).containers, [])
  assert.equal(await kubelet().outputOf(pod, 'echo works'), 'works')
  await kubelet().removePod(pod.id)
})
