import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { processRef, signalProcess } from '../../src/os/processes.ts'
import { killLeftExec } from '../../src/runtime/left-execs.ts'
import { TestClient } from '../support/channels.ts'
import {
  eventually,
  processesWith,
  type TestContainer,
  uniqueSleep,
  useRuntimeHost,
} from '../support/runtime-host.ts'

const host = useRuntimeHost()
const SIGKILL = 9
const MiB = 2 ** 20

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

function exec(
  container: TestContainer,
  script: string,
  client: TestClient,
  killAfterMs = 0,
): Promise<number> {
  return host.execStream(container, ['sh', '-c', script], client, killAfterMs)
}

test('output, errors, exit codes, and what stdin brings to its end', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient({ stdin: true })
  const running = exec(container, 'cat; echo err >&2; exit 7', client)
  client.type('hello')
  client.endInput()
  assert.equal(await running, 7)
  assert.deepEqual([client.stdout.text, client.stderr?.text], ['hello', 'err\n'])
  assert.ok(client.stdout.writableFinished && client.stderr?.writableFinished)
  for (const [script, code] of [
    ['exit 0', 0],
    ['exit 255', 255],
    ['kill -9 $$', 137],
  ] as const) {
    assert.equal(await exec(container, script, new TestClient()), code)
  }
})

test('what cannot start is an error in the words of the runtime, with a terminal too', async () => {
  const container = await host.run(uniqueSleep())
  for (const tty of [false, true]) {
    const client = new TestClient({ stdin: true, tty })
    await assert.rejects(host.execStream(container, ['no-such-program'], client), {
      code: 'internal',
      message: /runc exec: .*no-such-program.* executable file not found/,
    })
    assert.equal(client.stdout.length, 0)
  }
})

test('a terminal: its size from the first moment, and changes', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient({ stdin: true, tty: true, size: { width: 90, height: 31 } })
  const script = 'trap "stty size; exit 9" WINCH; tty; stty size; while :; do read x; echo got $x; done'
  const running = exec(container, script, client)
  await eventually('it told its size', () => /\/dev\/pts\/0\r\n31 90\r\n/.test(client.stdout.text))
  client.type('a b\n')
  await eventually('it read', () => /a b\r\ngot a b\r\n$/.test(client.stdout.text))
  client.resize(100, 40)
  await eventually('it told the new one', () => client.stdout.text.includes('40 100\r\n'))
  client.type('\n')
  assert.equal(await running, 9)
})

test('a terminal: the end of what is typed is not its end, and the last output arrives', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient({ stdin: true, tty: true })
  const running = exec(container, 'read x; head -c 100000 /dev/zero | tr "\\0" y; exit 4', client)
  client.type('\n')
  client.endInput()
  assert.equal(await running, 4)
  assert.equal(client.stdout.text.replace(/[^y]/g, '').length, 100_000)
})

test('64 MiB of random bytes go in and come back unchanged', async () => {
  const container = await host.run(uniqueSleep())
  const data = randomBytes(64 * MiB)
  const chunks = Array.from({ length: 1024 }, (_, i) => data.subarray(i * 65_536, (i + 1) * 65_536))
  const client = new TestClient({ stdin: Readable.from(chunks) })
  assert.equal(await exec(container, 'cat', client), 0)
  assert.equal(sha256(client.stdout.bytes), sha256(data))
})

test('a reader that stops stops the process, costs no memory, and gets everything in the end', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient()
  client.stdout.hold()
  const before = process.memoryUsage().rss
  // What is written when all of it fits nowhere is told on the other stream.
  const running = exec(container, 'dd if=/dev/zero bs=64k count=1024 2>/dev/null; echo written >&2', client)
  await eventually('some of it came', () => client.stdout.length > 0)
  await new Promise(resolve => setTimeout(resolve, 300))
  assert.equal(client.stderr?.text, '')
  assert.ok(process.memoryUsage().rss - before < 20 * MiB)
  client.stdout.release()
  assert.equal(await running, 0)
  assert.deepEqual([client.stdout.length, client.stderr?.text], [64 * MiB, 'written\n'])
})

test('a client that closes its end of the output ends the writer as a pipeline does', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient()
  const running = exec(container, 'exec yes', client)
  await eventually('it writes', () => client.stdout.length > 0)
  client.stdout.destroy()
  assert.equal(await running, 128 + 13)
})

test('what it leaves running may write on for a while, and then holds nothing up', async () => {
  const container = await host.run(uniqueSleep())
  const client = new TestClient()
  assert.equal(await exec(container, '(sleep 0.3; echo late) & echo soon; exit 5', client), 5)
  assert.equal(client.stdout.text, 'soon\nlate\n')
})

test('a client that leaves: SIGHUP, with a terminal and without', async () => {
  const container = await host.run(uniqueSleep())
  for (const tty of [false, true]) {
    const command = uniqueSleep()
    const client = new TestClient({ stdin: true, tty })
    const running = exec(container, `${command}; true`, client)
    await eventually('it runs', () => processesWith(command).length === 1)
    client.vanish()
    await assert.rejects(running, { code: 'cancelled', message: /the client has left/ })
    await eventually('it is gone', () => processesWith(command).length === 0)
  }
})

test('what ignores SIGHUP runs on, or is killed with its children where that is asked for', async () => {
  const container = await host.run(uniqueSleep())
  for (const killAfterMs of [0, 100]) {
    const command = uniqueSleep()
    const client = new TestClient()
    const running = exec(container, `trap '' HUP; ${command} & wait`, client, killAfterMs)
    await eventually('it runs', () => processesWith(command).length === 1)
    client.vanish()
    await assert.rejects(running, { code: 'cancelled' })
    assert.equal(processesWith(command).length, killAfterMs === 0 ? 1 : 0)
  }
  assert.deepEqual(readdirSync(join(host.root, 'x')), [])
})

test('a client that has left before, or while it starts, leaves nothing', async () => {
  const container = await host.run(uniqueSleep())
  for (let delay = 0; delay < 40; delay += 4) {
    const command = uniqueSleep()
    const client = new TestClient({ tty: delay % 8 === 0 })
    const running = exec(container, `trap '' HUP; ${command}; true`, client, 1)
    const outcome = assert.rejects(running, { code: 'cancelled' })
    await new Promise(resolve => setTimeout(resolve, delay))
    client.vanish()
    await outcome
    await eventually('nothing of it runs', () => processesWith(command).length === 0)
  }
  assert.deepEqual(readdirSync(join(host.root, 'x')), [])
})

test('stopping the container ends it, and what it wrote arrives', async () => {
  const container = await host.run(uniqueSleep())
  const command = uniqueSleep()
  const client = new TestClient()
  const running = exec(container, `echo out; ${command}; true`, client)
  await eventually('it runs', () => processesWith(command).length === 1)
  host.runtime.endExecs(container.id)
  assert.equal(await running, 137)
  assert.equal(client.stdout.text, 'out\n')
  assert.deepEqual(processesWith(command), [])
  await assert.rejects(exec(container, 'true', new TestClient()), { code: 'precondition' })
})

test('the end of the container is the end of it', async () => {
  const container = host.container(uniqueSleep())
  const { init } = await host.runtime.create(host.request(container))
  await host.runtime.start(container.id, container.paths)
  const client = new TestClient({ stdin: true, tty: true })
  const running = exec(container, 'echo here; cat', client)
  await eventually('it runs', () => client.stdout.text.includes('here'))
  signalProcess(init, SIGKILL)
  assert.equal(await running, 137)
})

test('fifty at once, with a terminal and without; then nothing of them is open', async () => {
  const container = await host.run(uniqueSleep())
  await exec(container, 'true', new TestClient())
  const descriptors = readdirSync('/proc/self/fd').length
  const codes = Array.from({ length: 50 }, async (_, i) => {
    const client = new TestClient({ stdin: true, tty: i % 2 === 0 })
    const running = exec(container, `read x; echo "$x"; exit ${i}`, client)
    client.type(`line ${i}\n`)
    const code = await running
    assert.match(client.stdout.text, new RegExp(`^(line ${i}\r\n)?line ${i}\r?\n$`))
    return code
  })
  assert.deepEqual(
    await Promise.all(codes),
    Array.from({ length: 50 }, (_, i) => i),
  )
  await eventually('descriptors are closed', () => readdirSync('/proc/self/fd').length <= descriptors)
})

test('what a daemon that died has left is found and killed; another process with its pid is not', async () => {
  const container = await host.run(uniqueSleep())
  const execs = join(host.root, 'x')
  const [ours, other] = [uniqueSleep(), uniqueSleep()]
  const client = new TestClient()
  const running = exec(container, `trap '' HUP; ${ours} & wait`, client)
  await eventually('it runs', () => processesWith(ours).length === 1)
  const directory = join(execs, readdirSync(execs)[0]!)
  const second = exec(container, `${other}; true`, new TestClient())
  await eventually('the other runs', () => processesWith(other).length === 1)
  const otherDirectory = readdirSync(execs)
    .map(name => join(execs, name))
    .find(path => path !== directory)!
  writeFileSync(join(otherDirectory, 'start-time'), '1')
  for (const path of [directory, otherDirectory]) await killLeftExec(path, host.cgroups)
  assert.deepEqual([processesWith(ours).length, processesWith(other).length], [0, 1])
  assert.equal(existsSync(directory), false)
  assert.equal(await running, 137)
  signalProcess(processRef(processesWith(other)[0]!)!, SIGKILL)
  await second
})
