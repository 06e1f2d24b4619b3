import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually, processesWith, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'

const host = useRuntimeHost()

test('output, exit codes, environment, user', async () => {
  const container = await host.run(uniqueSleep(), { config: { envs: [['A', 'b c']] } })
  const result = await host.exec(container, ['sh', '-c', 'echo "$A"; id -u; echo err >&2; exit 42'])
  assert.deepEqual([result.code, String(result.stdout), String(result.stderr)], [42, 'b c\n0\n', 'err\n'])
  for (const code of [0, 1, 255]) {
    assert.equal((await host.exec(container, ['sh', '-c', `exit ${code}`])).code, code)
  }
  assert.equal((await host.exec(container, ['sh', '-c', 'kill -9 $$'])).code, 137)
})

test('what cannot start is an error in the words of the runtime, and leaves no file', async () => {
  const container = await host.run(uniqueSleep())
  const directory = join(host.root, 'x', 'fails')
  await assert.rejects(host.exec(container, ['no-such-program'], { directory }), {
    code: 'internal',
    message: /runc exec: .*no-such-program.* executable file not found/,
  })
  assert.equal(existsSync(directory), false)
  const missing = { ...container, id: 'f'.repeat(64) }
  await assert.rejects(host.exec(missing, ['true']), { code: 'internal', message: /does not exist/ })
})

test('output beyond the limit is dropped, and the writer is not held up', async () => {
  const container = await host.run(uniqueSleep())
  const script = 'yes | head -c 30000000; yes x | head -c 5000000 >&2'
  const { code, stdout, stderr } = await host.exec(container, ['sh', '-c', script], { maxOutput: 1_000_001 })
  assert.deepEqual([code, stdout.length, stderr.length], [0, 1_000_001, 1_000_001])
})

test('a timeout kills every process of it, and nothing else', async () => {
  const own = uniqueSleep()
  const container = await host.run(own)
  const [one, two, three] = [uniqueSleep(), uniqueSleep(), uniqueSleep()]
  const script = `${one} & setsid ${two} & (setsid sh -c '${three}; true') & wait`
  await assert.rejects(host.exec(container, ['sh', '-c', script], { timeoutMs: 700 }), {
    code: 'deadline',
    message: /timed out after 700 ms/,
  })
  for (const command of [one, two, three]) assert.deepEqual(processesWith(command), [], command)
  assert.equal(processesWith(own).length, 1)
  assert.equal((await host.exec(container, ['true'])).code, 0)
})

test('a timeout before it has even begun', async () => {
  const container = await host.run(uniqueSleep())
  const command = uniqueSleep()
  await assert.rejects(host.exec(container, ['sh', '-c', command], { timeoutMs: 1 }), { code: 'deadline' })
  await eventually('nothing of it runs', () => processesWith(command).length === 0)
})

test('what it leaves running holds its pipes, but not the answer', async () => {
  const container = await host.run(uniqueSleep())
  const left = uniqueSleep()
  const script = `echo before; ${left} & exit 5`
  const { code, stdout } = await host.exec(container, ['sh', '-c', script], { timeoutMs: 1500 })
  assert.deepEqual([code, String(stdout)], [5, 'before\n'])
  assert.equal(processesWith(left).length, 1)
})

test('cancelling kills it', async () => {
  const container = await host.run(uniqueSleep())
  const command = uniqueSleep()
  const abort = new AbortController()
  const running = host.exec(container, ['sh', '-c', `${command}; true`], {
    timeoutMs: 0,
    signal: abort.signal,
  })
  await eventually('it runs', () => processesWith(command).length === 1)
  abort.abort()
  await assert.rejects(running, { code: 'cancelled' })
  assert.deepEqual(processesWith(command), [])
})

test('ending those of a container kills them and refuses new ones', async () => {
  const container = await host.run(uniqueSleep())
  const command = uniqueSleep()
  const running = host.exec(container, ['sh', '-c', `${command}; true`], { timeoutMs: 0 })
  await eventually('it runs', () => processesWith(command).length === 1)
  host.runtime.endExecs(container.id)
  await assert.rejects(running, { code: 'precondition', message: /is being stopped/ })
  assert.deepEqual(processesWith(command), [])
  await assert.rejects(host.exec(container, ['true']), { code: 'precondition' })
})
