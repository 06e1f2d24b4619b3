import assert from 'node:assert/strict'
import { chmodSync, existsSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isAlive } from '../../src/os/processes.ts'
import { createRuntime } from '../../src/runtime/runc.ts'
import { crunFor } from '../support/crun.ts'
import { eventually, type TestContainer, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'

const host = useRuntimeHost()

const exitOf = ({ id, paths }: TestContainer) =>
  eventually('the container ended', () => host.runtime.readExit(id, paths))

type Changes = Parameters<typeof host.options>[0]

function script(name: string, body: string): string {
  const path = join(host.root, name)
  writeFileSync(path, `#!/bin/sh\n${body}\n`)
  chmodSync(path, 0o755)
  return path
}

test('a program that is missing, broken or old is the problem of its handler', async () => {
  const warned: string[] = []
  const log = { info: () => undefined, warn: (_: object, message: string) => warned.push(message) }
  const problems: Array<[Changes, RegExp]> = [
    [{ conmonPath: '/no/conmon' }, /cannot start \/no\/conmon: no such program/],
    [{ runtimePath: '/no/runc' }, /cannot start \/no\/runc: no such program/],
    [
      { runtimePath: script('mute', 'true') },
      /mute --version: expected an OCI runtime's, got: no reason given \(exit code 0\)/,
    ],
    [
      { runtimePath: script('sick', 'echo no library >&2; exit 127') },
      /sick.*got: no library \(exit code 127\)/,
    ],
    [{ runtimePath: '/etc/passwd' }, /not an executable program/],
    [{ conmonPath: script('old-conmon', 'echo conmon version 2.0.25') }, /2\.1\.2 or later.*2\.0\.25/],
  ]
  for (const [changes, problem] of problems) {
    warned.length = 0
    const runtime = await createRuntime(host.options({ ...changes, log }))
    assert.match(runtime.problem ?? '', problem)
    assert.match(runtime.problem ?? '', /^runtime handler runc is not available: /)
    assert.deepEqual(warned, [runtime.problem])
    await runtime.probe()
    assert.equal(warned.length, 1)
    assert.deepEqual([runtime.version, runtime.features.seccomp], ['', false])
  }
  const options = host.options({ socketsDir: `/${'x'.repeat(40)}` })
  await assert.rejects(createRuntime(options), { code: 'invalid', message: /35 bytes/ })
})

test('a runtime that was installed elsewhere later is found', async () => {
  let runtimePath = '/no/runc'
  const runtime = await createRuntime(host.options({ runtimePath, findRuntime: () => runtimePath }))
  assert.match(runtime.problem ?? '', /no such program/)
  runtimePath = host.options().runtimePath
  await runtime.probe()
  assert.deepEqual([runtime.problem, runtime.version], [undefined, host.runtime.version])
  const container = host.container('exit 4')
  await runtime.create(host.request(container))
  await runtime.start(container.id, container.paths)
  assert.equal((await exitOf(container)).code, 4)
})

test('without its runtime a container is removed all the same', async () => {
  const runtimePath = join(host.root, 'runc')
  symlinkSync(host.options().runtimePath, runtimePath)
  const runtime = await createRuntime(host.options({ runtimePath }))
  const make = async (script: string) => {
    const container = host.container(script)
    const { init, monitor } = await runtime.create(host.request(container))
    await runtime.start(container.id, container.paths)
    return { ...container, processes: [init, monitor] }
  }
  const [living, ended] = [await make(uniqueSleep()), await make('exit 0')]
  await exitOf(ended)
  rmSync(runtimePath)
  for (const { id, paths, cgroup, processes } of [living, ended]) {
    await runtime.remove(id, paths)
    await host.cgroups.kill(cgroup)
    await host.cgroups.remove(cgroup)
    assert.deepEqual(processes.filter(isAlive), [])
    assert.equal(existsSync(paths.bundle), false)
    assert.equal((await runtime.list()).includes(id), false)
  }
  const failing = host.container('exit 0')
  const refusal = {
    code: 'precondition',
    message: /^runtime handler runc is not available: .*no such program/,
  }
  await assert.rejects(runtime.create(host.request(failing)), refusal)
})

test('a monitor that disappears later is an error of create', async () => {
  const vanishing = script('vanishing-conmon', 'echo conmon version 2.1.6')
  const runtime = await createRuntime(host.options({ conmonPath: vanishing }))
  const mute = host.container('exit 0')
  await assert.rejects(runtime.create(host.request(mute)), { code: 'internal', message: /conmon/ })
  rmSync(vanishing)
  const container = host.container('exit 0')
  await assert.rejects(runtime.create(host.request(container)), {
    code: 'precondition',
    message: /vanishing-conmon: no such program/,
  })
  assert.deepEqual(await runtime.state(container.id), undefined)
})

for (const name of ['runc', 'crun']) {
  const runtimePath = ['/usr/sbin', '/usr/bin'].map(dir => join(dir, name)).find(path => existsSync(path))
  const skip = runtimePath === undefined && `${name} is not installed`
  test(`the default seccomp profile of arm64 is one that ${name} takes`, { skip }, async () => {
    const program = name === 'crun' ? crunFor(host.root, runtimePath!) : runtimePath!
    const runtime = await createRuntime(host.options({ runtimePath: program }))
    for (const add of [[], ['ALL']]) {
      const container = host.container('exit 7', {
        host: { arch: 'arm64' },
        security: { seccomp: { kind: 'runtime-default' }, capabilities: { add, drop: [], addAmbient: [] } },
      })
      const { seccomp } = container.spec.linux
      // Every rule is compiled for each of them, and for the node's own.
      assert.deepEqual(seccomp?.architectures, ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'])
      // No program of amd64 begins without this call.
      const more = { names: ['arch_prctl'], action: 'SCMP_ACT_ALLOW' }
      const linux = {
        ...container.spec.linux,
        seccomp: { ...seccomp, syscalls: [...(seccomp.syscalls ?? []), more] },
      }
      await runtime.create(host.request(container, { spec: { ...container.spec, linux } }))
      await runtime.start(container.id, container.paths)
      const exit = await eventually('it ended', () => runtime.readExit(container.id, container.paths))
      assert.equal(exit.code, 7)
      await runtime.remove(container.id, container.paths)
    }
  })
}
