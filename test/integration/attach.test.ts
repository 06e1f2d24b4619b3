import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { TestClient } from '../support/channels.ts'
import { eventually, uniqueSleep, useRuntimeHost } from '../support/runtime-host.ts'

const host = useRuntimeHost()

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

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

test('in the created state, with big input in both directions, and large chunks', async () => {
  const container = await host.create('cat', { stdin: true, stdinOnce: true })
  const data = randomBytes(8 * 2 ** 20)
  // Larger than a packet may be, and no multiple of it.
  const chunks = Array.from({ length: 84 }, (_, i) => data.subarray(i * 100_000, (i + 1) * 100_000))
  const client = new TestClient({ stdin: Readable.from(chunks) })
  const attached = host.attach(container, client)
  await host.runtime.start(container.id, container.paths)
  await attached
  assert.deepEqual(sha256(client.stdout.bytes), sha256(data))
})

test('without stdin_once the end of a client’s stdin is that of the client, and the next one goes on', async () => {
  const container = await host.create('while read x; do echo "got $x"; done', { stdin: true })
  await host.runtime.start(container.id, container.paths)
  for (const word of ['one', 'two']) {
    const client = new TestClient({ stdin: true })
    const attached = host.attach(container, client)
    client.type(`${word}\n`)
    await eventually('it answered', () => client.stdout.text === `got ${word}\n`)
    client.endInput()
    await attached
  }
  assert.equal((await host.runtime.state(container.id))?.status, 'running')
})

test('what a client types for a container that reads nothing holds up neither its leaving nor another client', async () => {
  const container = await host.create(`echo ready; ${uniqueSleep()}`, { stdin: true })
  const [typist, reader] = [new TestClient({ stdin: true }), new TestClient()]
  const [typing, reading] = [host.attach(container, typist), host.attach(container, reader)]
  await host.runtime.start(container.id, container.paths)
  await eventually('both see it', () => [typist, reader].every(({ stdout }) => stdout.text === 'ready\n'))
  typist.type(randomBytes(2 ** 20))
  typist.vanish()
  await typing
  reader.vanish()
  await reading
})

test('a hundred clients that come and vanish leave nothing open', async () => {
  const container = await host.create('while :; do echo x; sleep 0.01; done', { stdin: true })
  await host.runtime.start(container.id, container.paths)
  const descriptors = readdirSync('/proc/self/fd').length
  const clients = Array.from({ length: 100 }, async () => {
    const client = new TestClient({ stdin: true })
    const attached = host.attach(container, client)
    await eventually('it sees something', () => client.stdout.length > 0)
    client.vanish()
    await attached
  })
  await Promise.all(clients)
  await eventually('descriptors are closed', () => readdirSync('/proc/self/fd').length <= descriptors)
})
