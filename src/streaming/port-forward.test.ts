import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { dataFrame, SpdyClient } from '../../test/support/spdy-client.ts'
import { serveStreams } from '../../test/support/streaming.ts'
import { until } from '../../test/support/wait.ts'
import { WebSocketClient } from '../../test/support/websocket-client.ts'
import { FrameReader } from './spdy-frames.ts'

const versions = ['portforward.k8s.io']

/** A TCP server, and how a pod's port is reached that is it. */
async function target(context: TestContext, onConnection: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  context.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { port, sockets }
}

async function dial(_pod: string, port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}

const echo = (socket: Socket) => void socket.pipe(socket)

/** As client-go does it: the error stream first, which the client ends at once. */
async function pair(client: SpdyClient, port: number, requestid: string) {
  const headers = { port: String(port), requestid }
  const error = await client.open({ ...headers, streamtype: 'error' })
  client.end(error.id)
  const data = await client.open({ ...headers, streamtype: 'data' })
  return { error, data }
}

test('many connections on one session, each with its own bytes and its own end', async context => {
  const { port, sockets } = await target(context, echo)
  const { server, recorded } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  assert.equal(client.answer.status, 101)
  const all = await Promise.all(
    Array.from({ length: 50 }, async (_, index) => {
      const sent = randomBytes(20_000 + index)
      return { sent, ...(await pair(client, port, String(index))) }
    }),
  )
  for (const { data, sent } of all) client.data(data.id, sent, { fin: true })
  await until('all answers have come', () => all.every(({ data, error }) => data.ended && error.ended))
  for (const { data, error, sent } of all) {
    assert.ok(data.received.equals(sent))
    assert.equal(error.received.length, 0)
  }
  assert.equal(client.goaway, undefined)
  client.socket.destroy()
  await until('the session is over', () => recorded.sessions().length === 1)
  await until('the target is left alone', () => sockets.size === 0)
  const [line] = recorded.sessions()
  assert.deepEqual([line?.outcome, line?.connections, line?.failedConnections], ['client-left', 50, 0])
})

test('a client that has said all still gets the answer, however late', async context => {
  const { port } = await target(context, async socket => {
    const asked = await buffer(socket)
    setTimeout(() => socket.end(`you said ${asked}`), 1500)
  })
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const { data } = await pair(client, port, '1')
  client.data(data.id, 'bye', { fin: true })
  await until('the answer comes', () => data.ended)
  assert.equal(data.received.toString(), 'you said bye')
})

test('a target that ends first: its bytes, its end, then a reset for a client that goes on', async context => {
  const { port } = await target(context, socket => socket.end('bye'))
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const { data, error } = await pair(client, port, '1')
  await until('the end comes', () => data.ended)
  assert.equal(data.received.toString(), 'bye')
  await until('the rest is given up', () => data.reset !== undefined && error.ended)
  // What is still under way to a dead target holds up nobody.
  for (let round = 0; round < 100; round++) client.data(data.id, Buffer.alloc(32_768))
  const next = await pair(client, port, '2')
  await until('another connection works', () => next.data.ended)
})

test('a port where nothing listens: a text, and the session goes on', async context => {
  const { port } = await target(context, echo)
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const refused = await pair(client, 1, '1')
  client.data(refused.data.id, Buffer.alloc(1 << 20))
  await until('the text comes', () => refused.error.ended)
  assert.match(refused.error.received.toString(), /^error forwarding port 1: connect ECONNREFUSED/)
  await until('the stream is reset', () => refused.data.reset !== undefined)
  const { data } = await pair(client, port, '2')
  client.data(data.id, 'x', { fin: true })
  await until('the other one works', () => data.ended)
})

test('a target that breaks off is told', async context => {
  const { port } = await target(context, socket => socket.once('data', () => socket.resetAndDestroy()))
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const { data, error } = await pair(client, port, '1')
  client.data(data.id, 'x')
  await until('the text comes', () => error.ended)
  assert.match(error.received.toString(), /ECONNRESET/)
  await until('the stream is reset', () => data.reset !== undefined)
})

test('pairs: in any order, of old clients, and what makes none', async context => {
  const { port } = await target(context, echo)
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const type = (streamtype: string, more: Record<string, string> = {}) => ({
    streamtype,
    port: String(port),
    ...more,
  })
  const old = { error: await client.open(type('error')), data: await client.open(type('data')) }
  const turned = await client.open(type('data', { requestid: 'x' }))
  await client.open(type('error', { requestid: 'x' }))
  for (const data of [old.data, turned]) client.data(data.id, 'x', { fin: true })
  await until('both work', () => old.data.ended && turned.ended)

  const waiting = await client.open(type('error', { requestid: 'y' }))
  const refused = [
    await client.open(type('error', { requestid: 'y' })),
    await client.open({ ...type('data', { requestid: 'y' }), port: '1' }),
    await client.open(type('stdin', { requestid: 'z' })),
    await client.open({ streamtype: 'data' }),
    ...(await Promise.all(
      ['0', '65536', '-1', '80x', ''].map(port => client.open({ streamtype: 'data', port })),
    )),
  ]
  await until('all are refused', () => refused.every(({ reset }) => reset === 3))
  assert.match(waiting.received.toString(), /has its error stream already/)
})

test('streams that are opened and reset in no time: so many pairs, then refusals', async context => {
  const { server } = await serveStreams(context, { connect: dial })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const open = (request: number) =>
    client.open({ streamtype: 'error', port: '1', requestid: String(request) })
  for (let request = 0; request < 1000; request++) client.reset((await open(request)).id)
  const last = [await open(1000), await open(1001)]
  await until('the last ones are answered', () => last.every(({ reset }) => reset === 3))
  const taken = [...client.streams.values()].filter(({ reset }) => reset === undefined)
  assert.equal(taken.length, 1000)
  assert.equal(client.goaway, undefined)
})

test('a client that leaves takes its connections with it, also those that are still being made', async context => {
  const { port, sockets } = await target(
    context,
    socket => void socket.resume().on('end', () => socket.end()),
  )
  const aborted: unknown[] = []
  let connecting = false
  const { server, recorded } = await serveStreams(context, {
    connect: async (pod, asked, signal) => {
      if (asked === port) return dial(pod, asked)
      connecting = true
      return await new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          aborted.push(signal.reason)
          reject(signal.reason)
        })
      })
    },
  })
  const client = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  await pair(client, port, '1')
  await pair(client, 9, '2')
  await until('one is connected, one not yet', () => sockets.size === 1 && connecting)
  client.socket.destroy()
  await until('the session is over', () => recorded.sessions().length === 1)
  await until('nothing is left', () => sockets.size === 0 && aborted.length === 1)
})

test('over the channels of a WebSocket', async context => {
  const { port } = await target(context, socket => {
    socket.once('data', chunk => socket.end(`got ${chunk}`))
  })
  const { server } = await serveStreams(context, { connect: dial })
  for (const protocol of ['v4.channel.k8s.io', undefined]) {
    const url = server.portForward({ podId: 'p', ports: [port, 1] })
    const client = await WebSocketClient.connect(url, protocol === undefined ? [] : [protocol])
    assert.equal(client.protocol, protocol)
    client.binary([0], 'hello')
    await client.untilClosed()
    const prefix = (number: number) => Buffer.from([number & 255, number >> 8])
    assert.deepEqual(client.on(0), Buffer.concat([prefix(port), Buffer.from('got hello')]))
    assert.deepEqual(client.on(1), prefix(port))
    assert.deepEqual(client.on(2), prefix(1))
    assert.match(client.on(3).toString('latin1', 2), /^error forwarding port 1: /)
    assert.equal(client.closeCode, 1000)
  }
  const url = server.portForward({ podId: 'p', ports: [port] })
  const client = await WebSocketClient.connect(url, ['v4.base64.channel.k8s.io'])
  client.text(`0${Buffer.from('hello').toString('base64')}`)
  await client.untilClosed()
  const data = client.messages.map(String).filter(message => message[0] === '0')
  assert.deepEqual(
    Buffer.concat(data.map(message => Buffer.from(message.slice(1), 'base64'))).toString('latin1', 2),
    'got hello',
  )
  await assert.rejects(
    WebSocketClient.connect(server.portForward({ podId: 'p', ports: [] }), ['v4.channel.k8s.io']),
    /refused with 400/,
  )
})

test('SPDY in the messages of a WebSocket, cut anywhere', async context => {
  const { port } = await target(context, echo)
  const { server, recorded } = await serveStreams(context, { connect: dial })
  const protocol = 'SPDY/3.1+portforward.k8s.io'
  const client = await WebSocketClient.connect(server.portForward({ podId: 'p', ports: [] }), [protocol])
  assert.equal(client.protocol, protocol)
  // A client whose frames are taken from one that is connected elsewhere: only its header compression is used.
  const unused = await SpdyClient.connect(server.portForward({ podId: 'p', ports: [] }), { versions })
  const bytes = randomBytes(100_000)
  const headers = { port: String(port), requestid: '1' }
  const wire = Buffer.concat([
    await unused.synStream(1, { ...headers, streamtype: 'error' }, { fin: true }),
    await unused.synStream(3, { ...headers, streamtype: 'data' }),
    dataFrame(3, bytes, true),
  ])
  unused.socket.destroy()
  assert.equal(client.messages.length, 0)
  for (let at = 0; at < wire.length; at += 7777) client.binary(wire.subarray(at, at + 7777))
  const reader = new FrameReader()
  const received: Buffer[] = []
  let ended = false
  client.onMessage = message => {
    reader.push(Buffer.from(message))
    for (let next = reader.next(); next !== undefined; next = reader.next()) {
      if (next.type !== 'data' || next.id !== 3) continue
      received.push(next.bytes)
      ended = next.last
    }
  }
  await until('all has come back', () => ended)
  assert.ok(Buffer.concat(received).equals(bytes))
  client.close(1000)
  await client.untilClosed()
  await until('the session is over', () => recorded.sessions().length === 2)
})

test('a tunnel whose client breaks the rules of WebSockets', async context => {
  const { server, recorded } = await serveStreams(context, { connect: dial })
  const tunnel = () =>
    WebSocketClient.connect(server.portForward({ podId: 'p', ports: [] }), ['SPDY/3.1+portforward.k8s.io'])
  const texting = await tunnel()
  texting.text('text')
  await texting.untilClosed()
  assert.equal(texting.closeCode, 1003)
  const unmasked = await tunnel()
  unmasked.socket.write(Buffer.from([0x82, 1, 0]))
  await unmasked.untilClosed()
  await until('both are told', () => recorded.outcomes.length === 2)
  assert.deepEqual(recorded.outcomes, [
    ['portforward', 'protocol-error'],
    ['portforward', 'protocol-error'],
  ])
})
