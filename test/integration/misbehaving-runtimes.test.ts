/** An OCI runtime that hangs, fails, lies or prints nonsense, command by command. See docs/reliability.md. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { createRuntime } from '../../src/runtime/runc.ts'
import type { Runtime } from '../../src/runtime/runtime.ts'
import { failure } from '../support/cni.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { OddRuntime } from '../support/odd-runtime.ts'
import { processesWith, RuntimeHost, uniqueSleep } from '../support/runtime-host.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const odd = new OddRuntime()
const kubelet = useDaemon({ label: 'runtimes', config: odd.configure })
const host = new RuntimeHost()
before(() => host.open())
after(() => host.close())
afterEach(() => odd.behave())

/** Sets $file to the argument of --pid-file. */
const PID_FILE = 'for a; do [ "$before" = --pid-file ] && file=$a; before=$a; done'

/** What a program may print instead of what is expected: 10 MB, and as much as a pipe takes that nobody reads. */
const FLOOD = 'yes "$(printf "\\033[2Jnonsense")" | head -c 10000000'
const SPLASH = FLOOD.replace('10000000', '60000')

async function statesOf(): Promise<string[]> {
  const { containers } = await kubelet().daemon.client.runtime('ListContainers', {})
  return containers.map(({ state }) => state)
}

async function runningIn(pod: TestPod): Promise<string> {
  return await kubelet().run(pod, FOREVER)
}

test('create that fails, lies or dies: an error in its words, and the same call succeeds later', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const config = kubelet().containerConfig(pod, 'echo made')
  const cases: Array<[shell: string, message: RegExp]> = [
    ['echo "out of luck" >&2; exit 1', /out of luck/],
    [`${SPLASH} >&2; exit 1`, /nonsense/],
    ['exit 0', /conmon/],
    ['kill -KILL $$', /conmon|Killed|signal/],
    [`${PID_FILE}; echo 1 >"$file"; exit 0`, /reports the pid 1, which is no process of the container/],
    [`${PID_FILE}; echo nonsense >"$file"; exit 0`, /./],
  ]
  for (const [shell, message] of cases) {
    odd.on('create', shell)
    await assert.rejects(kubelet().createAs(pod, config), (error: Error) => {
      assert.match(error.message, message, shell)
      assert.doesNotMatch(error.message, /[\x00-\x1f]/)
      assert.ok(error.message.length < 10_000)
      return true
    })
    assert.deepEqual(await statesOf(), [], shell)
  }
  odd.behave()
  const id = await kubelet().createAs(pod, config)
  await kubelet().start(id)
  assert.equal((await kubelet().exited(id)).exit_code, 0)
})

test('start that fails, dies, or does nothing and says it succeeded: 128 and StartError', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const cases: Array<[shell: string, message: RegExp]> = [
    ['echo no >&2; exit 1', /no \(exit code 1\)/],
    ['kill -SEGV $$', /exit code 139/],
    [`${FLOOD} >&2; exit 1`, /nonsense/],
    ['exit 0', /reports success, but the container still waits for its start/],
  ]
  for (const [shell, message] of cases) {
    const id = await kubelet().create(pod, FOREVER)
    odd.on('start', shell)
    await assert.rejects(kubelet().start(id), failure('internal', message))
    const { state, exit_code, reason } = await kubelet().status(id)
    assert.deepEqual([state, exit_code, reason], ['CONTAINER_EXITED', 128, 'StartError'], shell)
  }
})

test('start that starts the container and says it failed: it runs', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const id = await kubelet().create(pod, FOREVER)
  odd.on('start', '/usr/sbin/runc "$@"; exit 4')
  await kubelet().start(id)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await kubelet().exec(id, 'echo on')).stdout, 'on\n')
})

test('state that fails at a start of the daemon: the container is unknown until it works, the others are served', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const [created, running] = [await kubelet().create(pod, 'echo started'), await runningIn(pod)]
  for (const shell of ['kill -KILL $$', `${FLOOD}; exit 0`]) {
    odd.on('state', shell)
    await kubelet().daemon.restart()
    assert.equal((await kubelet().status(created)).state, 'CONTAINER_UNKNOWN', shell)
    assert.equal((await kubelet().status(running)).state, 'CONTAINER_RUNNING')
  }
  assert.match(
    kubelet().daemon.log,
    /a container could not be recovered; stopping and removing it still works/,
  )
  odd.behave()
  await until(
    'it is known again',
    async () => (await kubelet().status(created)).state === 'CONTAINER_CREATED',
  )
  await kubelet().start(created)
  assert.equal((await kubelet().exited(created)).exit_code, 0)
})

test('state that fails: an unknown container can be stopped and removed', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const id = await kubelet().create(pod, FOREVER)
  odd.on('state', 'exit 1')
  await kubelet().daemon.restart()
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_UNKNOWN')
  await kubelet().stop(id)
  assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
  await kubelet().remove(id)
})

test('delete that fails, or lies: the container has exited, the rest is tried again until it works', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const cases: Array<[shell: string, message: RegExp]> = [
    ['echo "not now" >&2; exit 1', /not now \(exit code 1\)/],
    ['exit 0', /delete: it reports success, but still knows container/],
  ]
  for (const [shell, message] of cases) {
    const id = await runningIn(pod)
    odd.on('delete', shell)
    await kubelet().stop(id)
    assert.equal((await kubelet().status(id)).exit_code, 137)
    await assert.rejects(kubelet().remove(id), failure('internal', message))
    assert.equal((await kubelet().status(id)).state, 'CONTAINER_EXITED')
    odd.behave()
    // Nobody asks again.
    await until('it is gone', async () => (await statesOf()).length === 0)
  }
  assert.match(kubelet().daemon.log, /what had failed is done what="removing container/)
})

test('a runtime that has lost its own state of a container: it is removed all the same', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const id = await runningIn(pod)
  const root = join(kubelet().daemon.runRoot, 'runtimes', 'odd', id)
  const [file] = readdirSync(root).filter(name => name === 'state.json')
  writeFileSync(join(root, file!), 'nonsense')
  await kubelet().stop(id)
  await kubelet().remove(id)
  assert.equal(existsSync(root), false)
  assert.match(kubelet().daemon.log, /the runtime cannot delete an ended container/)
})

test('exec that fails, lies, hangs or prints without end: an error, and the next one works', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const id = await runningIn(pod)
  // Repeated: a runtime that has ended before anybody looked at it must not lead to the daemon's own process.
  const reportsUs = `${PID_FILE}; echo $PPID >"$file"; exit 0`
  const cases: Array<[shell: string, message: RegExp]> = [
    ['echo no >&2; exit 1', /exec: no/],
    [`${SPLASH} >&2; exit 1`, /nonsense/],
    ['kill -KILL $$', /exec/],
    ['exit 0', /exec: it has left no pid/],
    ...Array.from(
      { length: 50 },
      () => [reportsUs, /reports the pid \d+, which is no process that it has started/] as [string, RegExp],
    ),
    [`${PID_FILE}; echo nonsense >"$file"; exit 0`, /exec: it has left no pid/],
  ]
  for (const [shell, message] of cases) {
    odd.on('exec', shell)
    await assert.rejects(kubelet().exec(id, 'echo works'), failure('internal', message))
  }
  const hang = uniqueSleep()
  for (const shell of [`${hang}; exit 0`, `yes; ${hang}`, `yes >&2; ${hang}`]) {
    odd.on('exec', shell)
    await assert.rejects(kubelet().exec(id, 'echo works', 1), failure('deadline', /timed out/))
    assert.deepEqual(processesWith(hang), [])
  }
  odd.behave()
  assert.equal((await kubelet().exec(id, 'echo works')).stdout, 'works\n')
})

test('update that fails: an error, and the limits are shown as they are in force', async () => {
  const pod = await kubelet().runPod({}, 'odd')
  const id = await runningIn(pod)
  const before = (await kubelet().status(id)).resources
  const linux = { memory_limit_in_bytes: 64 << 20 }
  for (const shell of ['echo no >&2; exit 1', 'kill -KILL $$', `${FLOOD}; exit 2`]) {
    odd.on('update', shell)
    await assert.rejects(
      kubelet().daemon.client.runtime('UpdateContainerResources', { container_id: id, linux }),
      failure('internal', /update: /),
    )
    assert.deepEqual((await kubelet().status(id)).resources, before)
  }
})

test('a runtime that says of itself what it cannot mean has no features, or is not available', async () => {
  const directory = join(host.root, 'odd-features')
  const program = new OddRuntime()
  const runtimePath = program.install(host.root)
  assert.equal(existsSync(directory), false)
  const cases: Array<[command: string, shell: string, problem: RegExp | undefined]> = [
    ['features', 'exit 1', undefined],
    ['features', 'kill -KILL $$', undefined],
    ['features', 'echo {}; exit 0', undefined],
    ['features', `echo '{"mountOptions":7,"linux":{"seccomp":true}}'; exit 0`, undefined],
    ['features', 'echo null; exit 0', /features: expected a JSON object, got null/],
    ['features', `${FLOOD}; exit 0`, /features: expected a JSON object, got \?\[2Jnonsense/],
    ['--version', `${FLOOD}; exit 0`, /expected an OCI runtime's, got: \?\[2Jnonsense/],
    ['--version', 'kill -KILL $$', /exit code 137/],
    ['--version', 'yes', /killed, since it took longer than 3000 ms/],
  ]
  for (const [command, shell, problem] of cases) {
    program.behave()
    program.on(command, shell)
    const runtime = await createRuntime(host.options({ runtimePath, commandLimitMs: 3000 }))
    if (problem === undefined) assert.equal(runtime.problem, undefined, shell)
    else assert.match(runtime.problem ?? '', problem)
    assert.equal(runtime.features.recursiveReadOnly, false)
  }
  program.behave()
})

/** A runtime with short limits, and what is asked of it. */
async function hasty(): Promise<{ runtime: Runtime; program: OddRuntime }> {
  const program = new OddRuntime()
  const runtimePath = program.install(join(host.root, 'logs'))
  const limits = { commandLimitMs: 2000, createLimitMs: 2000 }
  return { runtime: await createRuntime(host.options({ runtimePath, ...limits })), program }
}

test('any command that hangs is killed at its limit, with what it has started', async () => {
  const { runtime, program } = await hasty()
  const hang = uniqueSleep()
  const container = host.container(FOREVER)
  const { id, paths } = container
  const request = host.request(container)
  const late = failure('deadline')
  for (const shell of [`${hang}; exit 0`, 'kill -STOP $PPID; exec /usr/sbin/runc "$@"']) {
    program.on('create', shell) // the second stops its monitor, which then does not answer
    await assert.rejects(
      runtime.create(request),
      failure('deadline', /creating container .* took longer than 2 s/),
    )
    await runtime.remove(id, paths)
    assert.deepEqual(processesWith(hang), [])
    assert.equal(existsSync(paths.bundle), false)
  }
  program.behave()
  const other = await host.run(FOREVER)
  const exec = { containerId: other.id, cgroup: other.cgroup, process: other.spec.process, timeoutMs: 0 }
  for (const shell of [hang, `yes >&2; ${hang}`]) {
    program.on('exec', shell)
    const directory = join(host.root, 'x', 'late')
    await assert.rejects(runtime.exec({ ...exec, directory, maxOutput: 1000 }), late)
  }
  await runtime.create(request)
  for (const command of ['start', 'state', 'update', 'delete']) program.on(command, `${hang} & yes`)
  await assert.rejects(runtime.start(id, paths), late)
  await assert.rejects(runtime.state(id), late)
  await assert.rejects(runtime.update(id, {}), late)
  await assert.rejects(runtime.remove(id, paths), late)
  await until('all that they have started is dead', () => processesWith(hang).length === 0)
  program.behave()
  await runtime.remove(id, paths)
  assert.equal(await runtime.state(id), undefined)
})
