/** What becomes of a container whose monitor is killed, hangs, or leaves nonsense. See docs/reliability.md. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { failure } from '../support/cni.ts'
import { FOREVER } from '../support/kubelet.ts'
import { OddRuntime } from '../support/odd-runtime.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const runtime = new OddRuntime()
const kubelet = useDaemon({ label: 'monitors', config: runtime.configure })
afterEach(() => runtime.behave())

type Processes = { readonly pid: number; readonly monitorPid: number }

async function processesOf(id: string): Promise<Processes> {
  return (await kubelet().containerInfo(id)) as unknown as Processes
}

function kill(pid: number, signal: NodeJS.Signals = 'SIGKILL'): void {
  process.kill(pid, signal)
}

/** A dead process may stay in the table for a while. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

const persistent = (id: string) => join(kubelet().daemon.root, 'containers', id)

/** State, exit code and reason. */
async function endOf(id: string): Promise<readonly [string, number, string]> {
  const { state, exit_code, reason } = await kubelet().exited(id)
  return [state, exit_code, reason]
}

const LOST = ['CONTAINER_EXITED', 255, 'MonitorLost'] as const
const UNKNOWN = ['CONTAINER_EXITED', 255, 'Unknown'] as const

/** A running container whose monitor was killed, once the daemon knows. */
async function unmonitored(script = FOREVER): Promise<{ id: string; pid: number; podId: string }> {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, script)
  const { pid, monitorPid } = await processesOf(id)
  kill(monitorPid)
  await until('the loss is logged', () => lossesOf(id) === 1)
  return { id, pid, podId: pod.id }
}

/** How often the daemons have said that this container has no monitor any more. */
function lossesOf(id: string): number {
  const lines = kubelet().daemon.log.split('\n')
  return lines.filter(
    line => line.includes('the monitor of a running container is gone') && line.includes(id),
  ).length
}

test('a monitor killed while its container runs: it runs on, and its exit code is unknown', async () => {
  const { id, pid } = await unmonitored()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(id, 'echo works')).stdout, 'works\n')
  const { log_path } = await kubelet().status(id)
  renameSync(log_path, `${log_path}.1`)
  await assert.rejects(
    kubelet().daemon.client.runtime('ReopenContainerLog', { container_id: id }),
    failure('precondition', /the container has no monitor any more/),
  )
  await kubelet().daemon.restart()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal(lossesOf(id), 2)
  kill(pid)
  assert.deepEqual(await endOf(id), LOST)
  assert.match((await kubelet().status(id)).message, /ended without leaving an exit code/)
})

test('a monitor killed while its container runs: it can be stopped, and removed while it runs', async () => {
  const first = await unmonitored()
  await kubelet().stop(first.id, 0)
  assert.deepEqual(await endOf(first.id), LOST)
  const second = await unmonitored()
  await kubelet().remove(second.id)
  assert.equal(isAlive(second.pid), false)
})

test('a monitor killed while its container is being stopped: the stop ends', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, `trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done`)
  await kubelet().prints(id, 'ready')
  const { monitorPid } = await processesOf(id)
  const stopped = kubelet().stop(id, 3)
  await kubelet().prints(id, 'asked')
  kill(monitorPid)
  await stopped
  assert.deepEqual(await endOf(id), LOST)
})

test('a monitor killed between create and start: the container is never started', async () => {
  const pod = await kubelet().runPod()
  const noticed = await kubelet().create(pod, FOREVER)
  kill((await processesOf(noticed)).monitorPid)
  assert.deepEqual(await endOf(noticed), LOST)
  assert.match(kubelet().daemon.log, /the monitor of a created container is gone/)
  // Right before the start.
  const early = await kubelet().create(pod, FOREVER)
  const monitor = (await processesOf(early)).monitorPid
  kill(monitor)
  await until('it is dead', () => !isAlive(monitor))
  await assert.rejects(kubelet().start(early), failure('precondition', /is exited; only a created one/))
  // While there is no daemon.
  const late = await kubelet().create(pod, FOREVER)
  const { pid, monitorPid } = await processesOf(late)
  await kubelet().daemon.kill9()
  kill(monitorPid)
  await kubelet().daemon.up()
  assert.deepEqual(await endOf(late), LOST)
  await until('its process is dead', () => !isAlive(pid))
})

test('a monitor killed during create: nothing is left, and the same call succeeds', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const config = kubelet().containerConfig(pod, 'echo made')
  for (const when of ['kill -KILL $PPID', '/usr/sbin/runc "$@"; kill -KILL $PPID; exit']) {
    runtime.on('create', when)
    await assert.rejects(
      kubelet().createAs(pod, config),
      failure('internal', /conmon ended without an answer/),
    )
    assert.deepEqual((await kubelet().daemon.client.runtime('ListContainers', {})).containers, [])
  }
  runtime.behave()
  const id = await kubelet().createAs(pod, config)
  await kubelet().start(id)
  assert.equal((await kubelet().exited(id)).exit_code, 0)
})

test('a monitor that hangs: it holds up nobody, its container is stopped and removed', async () => {
  const pod = await kubelet().runPod()
  const neighbour = await kubelet().run(pod, FOREVER)
  const id = await kubelet().run(pod, FOREVER)
  const { monitorPid } = await processesOf(id)
  kill(monitorPid, 'SIGSTOP')
  assert.equal((await kubelet().exec(id, 'echo works')).stdout, 'works\n')
  const { log_path } = await kubelet().status(id)
  renameSync(log_path, `${log_path}.1`)
  await assert.rejects(
    kubelet().daemon.client.runtime('ReopenContainerLog', { container_id: id }),
    failure('deadline', /the monitor has not reopened/),
  )
  const stopped = kubelet().stop(id, 0)
  assert.equal((await kubelet().exec(neighbour, 'echo works')).stdout, 'works\n')
  await stopped
  assert.deepEqual(await endOf(id), UNKNOWN)
  assert.match((await kubelet().status(id)).message, /did not record its exit within 5 s and was killed/)
  await until('the monitor is dead', () => !isAlive(monitorPid))
})

test('a monitor that hangs when its container ends by itself: that is noticed', async () => {
  const id = await kubelet().run(await kubelet().runPod(), FOREVER)
  const { pid, monitorPid } = await processesOf(id)
  kill(monitorPid, 'SIGSTOP')
  kill(pid)
  assert.deepEqual(await endOf(id), UNKNOWN)
})

test('an exit file that comes late is waited for', async () => {
  const id = await kubelet().run(await kubelet().runPod(), FOREVER)
  const { pid, monitorPid } = await processesOf(id)
  kill(monitorPid, 'SIGSTOP')
  const stopped = kubelet().stop(id, 0)
  await until('the process is dead', () => !isAlive(pid))
  await sleep(500)
  kill(monitorPid, 'SIGCONT')
  await stopped
  assert.deepEqual(await endOf(id), ['CONTAINER_EXITED', 137, 'Error'])
})

test('what ends together with its monitor while no daemon is there', async () => {
  const pod = await kubelet().runPod()
  const cases: Array<[leave: (id: string) => void, end: readonly unknown[], message: RegExp]> = [
    [() => undefined, LOST, /ended without leaving an exit code/],
    [id => writeFileSync(join(persistent(id), 'exit'), '42'), ['CONTAINER_EXITED', 42, 'Error'], /^$/],
    [
      id => writeFileSync(join(persistent(id), 'exit'), ''),
      UNKNOWN,
      /exit: expected an exit code, found nothing/,
    ],
    [id => writeFileSync(join(persistent(id), 'exit'), '\x1b[2J{}'), UNKNOWN, /found "\?\[2J\{\}"/],
    [id => writeFileSync(join(persistent(id), 'exit'), '9'.repeat(5000)), UNKNOWN, /found 5000 bytes/],
    [id => mkdirSync(join(persistent(id), 'exit')), UNKNOWN, /exit: expected a file/],
    [id => mkdirSync(join(kubelet().daemon.runRoot, 'exits', id)), UNKNOWN, /expected a file/],
  ]
  const ids = await Promise.all(cases.map(() => kubelet().run(pod, FOREVER)))
  const processes = await Promise.all(ids.map(processesOf))
  await kubelet().daemon.kill9()
  for (const [index, { pid, monitorPid }] of processes.entries()) {
    kill(monitorPid)
    kill(pid)
    await until('both are dead', () => !isAlive(monitorPid) && !isAlive(pid))
    cases[index]![0](ids[index]!)
  }
  await kubelet().daemon.up()
  for (const [index, [, end, message]] of cases.entries()) {
    assert.deepEqual(await endOf(ids[index]!), end)
    assert.match((await kubelet().status(ids[index]!)).message, message)
    await kubelet().remove(ids[index]!)
  }
})

test('an exit file of a container that runs is not believed', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  for (const file of [join(persistent(id), 'exit'), join(kubelet().daemon.runRoot, 'exits', id)])
    writeFileSync(file, '0')
  await kubelet().daemon.restart()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(id, 'echo works')).stdout, 'works\n')
  await kubelet().stop(id)
  assert.deepEqual(await endOf(id), ['CONTAINER_EXITED', 137, 'Error'])
})

test('a monitor that was killed while it wrote the exit file: what it had begun with goes too', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'exit 3')
  await kubelet().exited(id)
  const begun = join(kubelet().daemon.runRoot, 'exits', `${id}.JMZKZ3`)
  writeFileSync(begun, '')
  await kubelet().remove(id)
  assert.equal(existsSync(begun), false)
})
