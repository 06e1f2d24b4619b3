import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestClient } from '../support/channels.ts'
import { eventually, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'

const host = useRuntimeHost()

test('two clients see the output, apart by stream, until the container ends', async () => {
  const container = await host.create('read x; echo "got $x"; echo err >&2; exit 3', { stdin: true })
  const [one, two] = [new TestClient({ stdin: true }), new TestClient()]
  const both = [host.attach(container, one), host.attach(container, two)]
  await host.runtime.start(container.id, container.paths)
  one.type('it\n')
  await Promise.all(both)
  for (const client of [one, two]) {
    assert.deepEqual([client.stdout.text, client.stderr?.text], ['got it\n', 'err\n'])
    assert.ok(client.stdout.writableFinished && client.stderr?.writableFinished)
  }
})

test('the end of stdin ends that of a container that gets one only once', async () => {
  const container = await host.create('cat; echo end', { stdin: true, stdinOnce: true })
  await host.runtime.start(container.id, container.paths)
  const watcher = new TestClient()
  const watching = host.attach(container, watcher)
  const passer = new TestClient()
  const passing = host.attach(container, passer)
  passer.vanish()
  await passing
  const client = new TestClient({ stdin: true })
  const attached = host.attach(container, client)
  client.type('hello ')
  client.endInput()
  await Promise.all([attached, watching])
  assert.deepEqual(
    [client.stdout.text, client.stderr?.text, watcher.stdout.text],
    ['hello end\n', '', 'hello end\n'],
  )
})

test('a terminal: size, and the keys that detach', async () => {
  const script = 'stty -echo; while read x; do stty size; done'
  const container = await host.create(script, { terminal: true, stdin: true })
  const client = new TestClient({ stdin: true, tty: true, size: { width: 81, height: 17 } })
  const attached = host.attach(container, client)
  await host.runtime.start(container.id, container.paths)
  client.type('\n')
  await eventually('it told its size', () => client.stdout.text.includes('17 81'))
  client.resize(2000, 50)
  client.type('\n')
  await eventually('it told the new one', () => client.stdout.text.includes('50 1000'))
  client.type('\x10\x11')
  await attached
  assert.equal((await host.runtime.state(container.id))?.status, 'running')
})

test('a client that does not read is dropped with a reason, and holds up nobody', async () => {
  const container = await host.create('read x; head -c 3000000 /dev/zero; echo; echo end; exit 0', {
    stdin: true,
  })
  const [reader, stuck] = [new TestClient({ stdin: true }), new TestClient()]
  stuck.stdout.hold()
  const reading = host.attach(container, reader)
  const dropped = assert.rejects(host.attach(container, stuck), {
    code: 'exhausted',
    message: /dropped, since 1024 KiB of output are waiting/,
  })
  await host.runtime.start(container.id, container.paths)
  reader.type('\n')
  await Promise.all([reading, dropped])
  assert.equal(reader.stdout.length, 3_000_005)
})

test('without a monitor there is nothing to attach to', async () => {
  const container = host.container(uniqueSleep())
  await assert.rejects(host.attach({ ...container, io: host.io() }, new TestClient()), {
    code: 'precondition',
    message: /no monitor/,
  })
})
