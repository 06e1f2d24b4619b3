import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import { setEffectHook } from '../../src/base/effects.ts'
import type { BerthError } from '../../src/base/errors.ts'
import type { ProcessRef } from '../../src/model/pod.ts'
import { isAlive, signalProcess } from '../../src/os/processes.ts'
import { watchExits } from '../../src/runtime/exits.ts'
import {
  eventually,
  processesWith,
  type TestContainer,
  uniqueSleep,
  useRuntimeHost,
} from '../support/runtime-host.ts'
import { someResources } from '../support/spec-input.ts'

const host = useRuntimeHost()

const exitOf = ({ id, paths }: TestContainer) =>
  eventually('the container ended', () => host.runtime.readExit(id, paths))

test('create, start, log, exit code', async () => {
  const container = host.container('echo out; echo err >&2; exit 7')
  const before = Date.now()
  const { init, monitor } = await host.runtime.create(host.request(container))
  assert.ok(isAlive(init) && isAlive(monitor))
  assert.deepEqual(await host.runtime.state(container.id), { status: 'created', pid: init.pid })
  assert.equal(host.runtime.readExit(container.id, container.paths), undefined)
  await host.runtime.start(container.id, container.paths)
  const exit = await exitOf(container)
  assert.equal(exit.code, 7)
  assert.equal(exit.oom, false)
  const finished = Number(exit.finishedAt / 1_000_000n)
  assert.ok(finished >= before - 1000 && finished <= Date.now() + 1000)
  assert.match(host.log(container), /^\S+ stdout F out$/m)
  assert.match(host.log(container), /^\S+ stderr F err$/m)
  await assert.rejects(host.runtime.start(container.id, container.paths), {
    code: 'internal',
    message: /runc start/,
  })
})

test('the monitor runs in the cgroup that was given, the container in its own', async () => {
  const container = host.container(uniqueSleep())
  const request = host.request(container)
  const { init, monitor } = await host.runtime.create(request)
  assert.deepEqual(host.cgroups.pids(request.monitorCgroup!), [monitor.pid])
  assert.deepEqual(host.cgroups.pids(container.cgroup), [init.pid])
})

test('a signal ends it with 128 + n', async () => {
  const container = await host.run(`trap 'exit 3' USR1; ${uniqueSleep()} & wait`)
  await host.runtime.kill(container.id, 'USR1', false)
  assert.equal((await exitOf(container)).code, 3)
  const other = host.container(uniqueSleep())
  const { init } = await host.runtime.create(host.request(other))
  await host.runtime.start(other.id, other.paths)
  signalProcess(init, 9)
  assert.equal((await exitOf(other)).code, 137)
  await host.runtime.kill(other.id, 'TERM', false) // it has stopped: that is what was wanted
})

test('memory beyond the limit leaves the mark and 137', async () => {
  const resources = someResources({ memoryLimit: 16 << 20 })
  const container = await host.run('x=$(yes | head -c 200000000)', { config: { resources } })
  const exit = await eventually('the kernel killed it', () => {
    const found = host.runtime.readExit(container.id, container.paths)
    return found?.oom === true ? found : undefined
  })
  assert.equal(exit.oom, true)
})

test('exits are announced, also those from before, and temporary names are not', async () => {
  const exits = join(host.root, 'e')
  const first = await host.run('exit 0')
  await exitOf(first)
  writeFileSync(join(exits, `${first.id}.A1B2C3`), '')
  const seen = new Set<string>()
  const watch = watchExits(
    exits,
    id => seen.add(id),
    error => assert.fail(String(error)),
  )
  try {
    assert.ok(seen.has(first.id))
    const second = await host.run('exit 0')
    await eventually('the second exit was announced', () => seen.has(second.id))
    assert.ok([...seen].every(id => !id.includes('.')))
  } finally {
    watch[Symbol.dispose]()
    rmSync(join(exits, `${first.id}.A1B2C3`))
  }
})

test('reopening the log: a new file, the old one complete', async () => {
  const container = await host.run('while :; do echo x; sleep 0.02; done')
  await eventually('it logs', () => host.log(container) !== '')
  const old = `${container.logPath}.old`
  renameSync(container.logPath, old)
  await host.runtime.reopenLog(container.paths, container.logPath)
  const rotated = readFileSync(old, 'utf8')
  await eventually('the new file is written', () => host.log(container) !== '')
  assert.equal(readFileSync(old, 'utf8'), rotated)
  assert.ok(rotated.endsWith('F x\n'))
})

test('reopening a log that was not moved loses nothing', async () => {
  const container = await host.run(`echo kept; ${uniqueSleep()}`)
  await eventually('it logs', () => host.log(container).includes('kept'))
  await host.runtime.reopenLog(container.paths, container.logPath)
  assert.match(host.log(container), /kept/)
})

test('reopening without a directory, or without a monitor, is an error and harms nothing', async () => {
  const container = host.container(uniqueSleep())
  const directory = join(host.root, 'logs', 'gone')
  const logPath = join(directory, '0.log')
  mkdirSync(directory)
  const { init, monitor } = await host.runtime.create(host.request(container, { logPath }))
  await host.runtime.start(container.id, container.paths)
  rmSync(directory, { recursive: true })
  await assert.rejects(host.runtime.reopenLog(container.paths, logPath), {
    code: 'precondition',
    message: /directory/,
  })
  assert.ok(isAlive(monitor))
  mkdirSync(directory)
  signalProcess(init, 9)
  await eventually('the monitor ended', () => !isAlive(monitor))
  await assert.rejects(host.runtime.reopenLog(container.paths, logPath), {
    code: 'precondition',
    message: /no monitor/,
  })
  assert.equal(existsSync(logPath), false)
})

test('update changes the limits in force', async () => {
  const container = await host.run(uniqueSleep(), {
    config: { resources: someResources({ memoryLimit: 32 << 20 }) },
  })
  await host.runtime.update(container.id, { memory: { limit: 64 << 20 }, cpu: { shares: 512 } })
  const applied = host.cgroups.applied(container.cgroup)
  assert.equal(applied.memoryLimit, 64 << 20)
  assert.equal(applied.cpuShares, 512)
  await assert.rejects(host.runtime.update('f'.repeat(64), {}), { code: 'internal', message: /runc update/ })
})

/** Nothing of a container is left but its persistent directory and its log. */
function assertGone({ id, paths, cgroup }: TestContainer, processes: ProcessRef[]): void {
  for (const ref of processes) assert.equal(isAlive(ref), false)
  for (const path of [
    paths.bundle,
    join(host.root, 's', id),
    join(host.root, 'e', id),
    join(host.root, 'r', id),
  ]) {
    assert.equal(existsSync(path), false, path)
  }
  assert.equal(host.cgroups.exists(cgroup), false)
}

test('remove: created, running, exited, unknown, twice', async () => {
  const created = host.container('exit 0')
  const refs = await host.runtime.create(host.request(created))
  await host.runtime.remove(created.id, created.paths)
  assertGone(created, Object.values(refs))
  const running = host.container(`${uniqueSleep()} & ${uniqueSleep()}`)
  const runningRefs = await host.runtime.create(host.request(running))
  await host.runtime.start(running.id, running.paths)
  await host.runtime.remove(running.id, running.paths)
  assertGone(running, Object.values(runningRefs))
  assert.equal(host.runtime.readExit(running.id, running.paths)?.code, 137)
  const exited = await host.run('exit 0')
  await exitOf(exited)
  await host.runtime.remove(exited.id, exited.paths)
  await host.runtime.remove(exited.id, exited.paths)
  assertGone(exited, [])
  const unknown = host.container('exit 0')
  await host.runtime.remove(unknown.id, unknown.paths)
  assert.equal(await host.runtime.state(unknown.id), undefined)
})

test("remove: also what knows neither its init nor its monitor's file, and what is frozen", async () => {
  const forgotten = host.container(uniqueSleep())
  const refs = await host.runtime.create(host.request(forgotten))
  await host.runtime.start(forgotten.id, forgotten.paths)
  rmSync(join(forgotten.paths.bundle, 'processes.json'))
  await host.runtime.remove(forgotten.id, forgotten.paths)
  assertGone(forgotten, Object.values(refs))
  const frozen = host.container(uniqueSleep())
  const frozenRefs = await host.runtime.create(host.request(frozen))
  await host.runtime.start(frozen.id, frozen.paths)
  const pause = await import('../../src/os/spawn.ts').then(({ run }) =>
    run('/usr/sbin/runc', {
      args: ['--root', join(host.root, 'r'), 'pause', frozen.id],
      env: {},
      timeoutMs: 5000,
    }),
  )
  assert.equal(pause.code, 0)
  await host.runtime.remove(frozen.id, frozen.paths)
  assertGone(frozen, Object.values(frozenRefs))
})

test("remove: with the node's PID namespace the children of init go too", async () => {
  const child = uniqueSleep()
  const container = host.container(`setsid ${child} & ${uniqueSleep()}`, { namespaces: { pid: 'node' } })
  const refs = await host.runtime.create(host.request(container))
  await host.runtime.start(container.id, container.paths)
  await eventually('the child runs', () => processesWith(child).length === 1)
  await host.runtime.remove(container.id, container.paths)
  assertGone(container, Object.values(refs))
  assert.deepEqual(processesWith(child), [])
})

test('the runtime knows which ids it holds', async () => {
  const container = host.container('exit 0')
  await host.runtime.create(host.request(container))
  assert.ok((await host.runtime.list()).includes(container.id))
})

test('create that fails says why, and leaves no process, state or log', async () => {
  const container = host.container('', { config: { command: ['/no/such/program'] } })
  await assert.rejects(host.runtime.create(host.request(container)), {
    code: 'internal',
    message: /runc create failed: .*\/no\/such\/program: no such file or directory/,
  })
  assert.deepEqual(await host.runtime.state(container.id), undefined)
  assert.equal(existsSync(container.logPath), false)
  await host.runtime.remove(container.id, container.paths)
  assertGone(container, [])
  const noLogDir = host.container('exit 0')
  await assert.rejects(host.runtime.create(host.request(noLogDir, { logPath: '/no/such/dir/log' })), {
    code: 'internal',
    message: /conmon: .*no\/such\/dir/,
  })
})

test('a create that is cancelled at any moment leaves nothing', async () => {
  for (let delay = 0; delay < 40; delay += 3) {
    const container = host.container(uniqueSleep())
    const request = host.request(container)
    const abort = new AbortController()
    const creating = host.runtime.create(request, abort.signal)
    const outcome = creating.catch((error: BerthError) => error.code)
    await sleep(delay)
    abort.abort()
    const created = await outcome
    if (typeof created === 'string') assert.equal(created, 'cancelled')
    assert.equal(host.cgroups.exists(container.cgroup), typeof created !== 'string')
    await host.runtime.remove(container.id, container.paths)
    assertGone(container, typeof created === 'string' ? [] : Object.values(created))
    assert.deepEqual(host.cgroups.pids(request.monitorCgroup!), [])
  }
})

test('a create that fails before the monitor is released starts no container', async () => {
  const container = host.container(uniqueSleep())
  setEffectHook({
    sync: ({ name }) => {
      if (name === 'release-monitor') throw new Error('stopped here')
    },
    async: async () => undefined,
  })
  try {
    await assert.rejects(host.runtime.create(host.request(container)), /stopped here/)
  } finally {
    setEffectHook(undefined)
  }
  await host.runtime.remove(container.id, container.paths)
  assertGone(container, [])
  assert.deepEqual(processesWith(container.spec.process.args.join(' ')), [])
})

test('stdin, terminal and discarded output', async () => {
  const terminal = host.container('test -t 0 && echo a terminal', { config: { tty: true } })
  await host.runtime.create(host.request(terminal, { terminal: true }))
  await host.runtime.start(terminal.id, terminal.paths)
  assert.equal((await exitOf(terminal)).code, 0)
  assert.match(host.log(terminal), /stdout F a terminal/)
  const silent = host.container('echo nobody reads this; exit 4')
  await host.runtime.create(host.request(silent, { logPath: '', stdin: true }))
  await host.runtime.start(silent.id, silent.paths)
  assert.equal((await exitOf(silent)).code, 4)
  const colon = host.container('exit 0')
  await assert.rejects(host.runtime.create(host.request(colon, { logPath: '/var/log/a:b.log' })), {
    code: 'invalid',
    message: /log_path: .*a:b\.log.*colon/,
  })
})

test('the default seccomp profile runs a shell and denies what it should', async () => {
  const seccomp = { kind: 'runtime-default' } as const
  const container = await host.run('ls / | wc -l; exec 2>&1; setsid sh -c "echo ok"; cat /proc/self/status', {
    security: { seccomp },
  })
  assert.equal((await exitOf(container)).code, 0)
  assert.match(host.log(container), /stdout F ok/)
  assert.match(host.log(container), /Seccomp:\t2/)
  assert.match(host.log(container), /CapInh:\t0000000000000000/)
})

test('the runtime is asked what it can do', () => {
  assert.match(host.runtime.version, /^runc \d/)
  assert.deepEqual(Object.keys(host.runtime.features).sort(), ['idmap', 'recursiveReadOnly', 'seccomp'])
  assert.equal(host.runtime.features.recursiveReadOnly, true)
})
