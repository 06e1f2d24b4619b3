import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type ClientStream, frame, SpdyClient, uint32 } from '../../test/support/spdy-client.ts'
import { type StreamingHost, serveStreams } from '../../test/support/streaming.ts'
import { until } from '../../test/support/wait.ts'
import type { Channels } from '../runtime/channels.ts'

const exec = { containerId: 'c', command: ['x'], tty: false, stdin: true, stdout: true, stderr: false }
const versions = ['v4.channel.k8s.io']

type Running = StreamingHost & {
  readonly client: SpdyClient
  readonly channels: Channels
  readonly signal: AbortSignal
  readonly streams: Readonly<Record<'error' | 'stdin' | 'stdout', ClientStream>>
  /** Ends the command. */
  readonly exit: (code: number) => void
}

/** A command that does what the test does with its channels. */
async function running(context: TestContext): Promise<Running> {
  const started = Promise.withResolvers<{ channels: Channels; signal: AbortSignal }>()
  const { promise, resolve: exit } = Promise.withResolvers<number>()
  const host = await serveStreams(context, {
    exec: async (_id, _command, _tty, channels, signal) => {
      started.resolve({ channels, signal })
      signal.addEventListener('abort', () => exit(137))
      return await promise
    },
  })
  const client = await SpdyClient.connect(host.server.exec(exec), { versions })
  const streams = {
    error: await client.open({ streamtype: 'error' }),
    stdin: await client.open({ streamtype: 'stdin' }),
    stdout: await client.open({ streamtype: 'stdout' }),
  }
  context.after(() => client.socket.destroy())
  return { ...host, client, streams, exit, ...(await started.promise) }
}

test('frames that break the protocol: GOAWAY with a reason, the command is told, the server lives', async context => {
  const bad: ReadonlyArray<readonly [RegExp, (client: SpdyClient) => Promise<Buffer> | Buffer]> = [
    [/version 2/, () => frame(6, uint32(1), 0, 2)],
    [/unknown type 77/, () => frame(77, uint32(1))],
    [/PING/, () => frame(6, uint32(1, 1))],
    [/PING/, () => frame(6, uint32(0))],
    [/SETTINGS/, () => frame(4, uint32(9))],
    [/GOAWAY/, () => frame(7, uint32(1))],
    [/RST_STREAM/, () => frame(3, uint32(1, 0))],
    [/at most 65536/, () => frame(4, Buffer.alloc(70_000))],
    [/header block/, () => frame(1, Buffer.concat([uint32(7, 0), Buffer.alloc(2), Buffer.from('garbage')]))],
    [
      /more than/,
      async client => {
        const bomb = await client.compress(Buffer.alloc(20 << 20))
        return frame(1, Buffer.concat([uint32(7, 0), Buffer.alloc(2), bomb]))
      },
    ],
    [
      /101 headers/,
      async client => {
        const block = await client.compress(uint32(101))
        return frame(8, Buffer.concat([uint32(1), block]))
      },
    ],
    [/stream 0/, client => client.synStream(0, {})],
  ]
  for (const [why, make] of bad) {
    const { client, signal, recorded } = await running(context)
    client.socket.write(await make(client))
    await client.untilClosed()
    assert.equal(client.goaway, 1, String(why))
    assert.match(signal.reason.message, why)
    await until('it is logged', () => recorded.sessions().length === 1)
    assert.deepEqual(recorded.outcomes, [['exec', 'protocol-error']])
  }
})

test('what is wrong with one stream is no matter of the others', async context => {
  const { client, channels, streams, exit } = await running(context)
  const even = await client.open({ streamtype: 'stdin' }, { id: 8 })
  const again = streams.stdout.id
  client.socket.write(await client.synStream(again, { streamtype: 'stdout' }))
  await until('both are refused', () => even.reset === 1 && streams.stdout.reset === 1)
  client.data(99, 'for nobody')
  client.socket.write(frame(9, uint32(streams.stdout.id, 1000)))
  client.socket.write(frame(4, uint32(1, 4, 1000)))
  client.socket.write(frame(8, Buffer.concat([uint32(streams.stdin.id), await client.compress(uint32(0))])))
  client.data(streams.stdin.id, 'still')
  const [chunk] = await once(channels.stdin!, 'data')
  assert.equal(String(chunk), 'still')
  client.end(streams.stdin.id)
  client.data(streams.stdin.id, 'after its end')
  channels.stdout!.end('fine')
  exit(0)
  await client.untilClosed()
  assert.equal(streams.stdout.received.toString(), 'fine')
})

test('pings are answered while a download stands still', async context => {
  const { client, channels } = await running(context)
  let written = 0
  while (channels.stdout!.write(Buffer.alloc(65_536))) written++
  client.socket.pause()
  channels.stdout!.on('drain', () => {
    while (channels.stdout!.write(Buffer.alloc(65_536))) written++
  })
  await until('everything is full', async () => {
    const before = written
    for (let round = 0; round < 20; round++) await turn()
    return before === written && channels.stdout!.writableNeedDrain
  })
  assert.ok(written * 65_536 < 30 << 20, 'what is not read is not written')
  client.ping(5)
  client.ping(7)
  client.socket.resume()
  await until('the pongs come', () => client.pongs.length === 2)
  assert.deepEqual(client.pongs, [5, 7])
})

test('a reader that stops holds the client, and lets it go on', async context => {
  const { client, channels, exit } = await running(context)
  const stdin = channels.stdin!
  let sent = 0
  while (client.data(3, Buffer.alloc(65_536, 'x')) && sent < 50 << 20) sent += 65_536
  await until('what is read ahead is bounded', () => stdin.readableLength >= 128 * 1024)
  for (let round = 0; round < 100; round++) await turn()
  assert.ok(stdin.readableLength < 256 * 1024)
  client.end(3)
  let read = 0
  for await (const chunk of stdin) read += chunk.length
  assert.equal(read, sent + 65_536)
  channels.stdout!.end()
  exit(0)
  await client.untilClosed()
})

test('a client that resets a stream: nobody writes there any more, the session goes on', async context => {
  const { client, channels, streams, exit } = await running(context)
  client.reset(streams.stdin.id)
  for await (const _ of channels.stdin!) assert.fail('nothing was sent')
  client.reset(streams.stdout.id)
  await once(channels.stdout!, 'close')
  exit(4)
  await client.untilClosed()
  assert.match(streams.error.received.toString(), /"message":"4"/)
})

/** Timers and sockets of this process. */
function resources(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter(kind => /^(Timeout|TCPSocketWrap|Zlib)$/.test(kind))
    .sort()
}

test('a client that vanishes: its command is told, its streams are closed, nothing is left', async context => {
  const before = resources()
  for (const leave of ['destroy', 'end', 'resetAndDestroy'] as const) {
    const { client, channels, signal, recorded } = await running(context)
    client.socket[leave]()
    if (!signal.aborted) await once(signal, 'abort')
    assert.equal(signal.reason.code, 'cancelled')
    await until('all is closed', () => channels.stdin!.destroyed && channels.stdout!.destroyed)
    await until('it is logged', () => recorded.sessions().length === 1)
    assert.deepEqual(recorded.outcomes, [['exec', 'client-left']])
  }
  await until('no timer and no socket is left', () => resources().length <= before.length)
  assert.deepEqual(resources(), before)
})

test('a client that provokes answers and reads none is no longer listened to', async context => {
  const { client, channels, exit } = await running(context)
  client.socket.pause()
  const pings = Buffer.concat(Array.from({ length: 5000 }, () => frame(6, uint32(1))))
  let sent = 0
  // Kernel buffers take some; then it ends.
  while (sent < 200 << 20) {
    if (!client.socket.write(pings)) {
      const drained = once(client.socket, 'drain').then(() => true)
      const patience = new Promise<boolean>(resolve => setTimeout(() => resolve(false), 1000))
      if (!(await Promise.race([drained, patience]))) break
    }
    sent += pings.length
  }
  assert.ok(sent < 100 << 20, 'it was never held')
  client.socket.resume()
  await until('it is listened to again', () => client.socket.writableLength === 0)
  channels.stdout!.end()
  exit(0)
  await client.untilClosed()
})

test('streams of a connection are bounded', async context => {
  const { server } = await serveStreams(context, { connect: () => new Promise(() => undefined) })
  const url = server.portForward({ podId: 'p', ports: [] })
  const client = await SpdyClient.connect(url, { versions: ['portforward.k8s.io'] })
  const streams: ClientStream[] = []
  for (let index = 0; index < 1001; index++) {
    streams.push(await client.open({ streamtype: 'error', port: '80', requestid: String(index) }))
  }
  await until('the last is refused', () => streams.at(-1)?.reset === 3)
  assert.ok(streams.slice(0, 1000).every(({ replied, reset }) => replied && reset === undefined))
  client.socket.destroy()
})
