import assert from 'node:assert/strict'
import { constants } from 'node:http2'
import { connect } from 'node:net'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { status } from '@grpc/grpc-js'
import { fakeServices, samplePod } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { deafClient, framed, RawClient } from '../../test/support/raw-client.ts'
import { until } from '../../test/support/wait.ts'
import { dict } from '../base/dict.ts'

const MIB = 2 ** 20
const CALM = constants.NGHTTP2_ENHANCE_YOUR_CALM
const RUNTIME = '/runtime.v1.RuntimeService'
const EMPTY = framed(Buffer.alloc(0))

/** A pod whose list is about a MiB. */
const BIG = samplePod({
  config: { ...samplePod().config, annotations: dict([['big', 'x'.repeat(MIB)]]) },
})

const big = fakeServices({ pods: { list: () => [BIG] } })

test('a client that does not read its replies keeps its share of bytes and no more', async context => {
  const { path, client, server, recorded } = await serve(context, {
    services: big,
    limits: { maxHeldBytes: 8 * MIB },
  })
  using raw = await RawClient.connect(path, { initialWindowSize: 0 })
  const calls = Array.from({ length: 20 }, () => raw.call(`${RUNTIME}/ListPodSandbox`, EMPTY))
  await until('all are answered', () => recorded.metrics.length === 20)
  await until('what is too much is reset', () => server.limits.openCalls === 4)
  await until('the client sees it', () => calls.filter(({ end }) => end?.reset === CALM).length === 16)
  assert.ok(server.limits.heldBytes <= 4 * MIB, String(server.limits.heldBytes))
  assert.equal((await client.runtime('ListPodSandbox', {})).items.length, 1, 'another client gets its reply')
  const told = recorded.lines.filter(({ message }) => message === 'call refused')
  assert.deepEqual(
    told.map(({ method, pid, error }) => [method, pid, error]),
    [
      [
        'ListPodSandbox',
        1,
        'cannot keep a reply that is not read: 4 MiB are held for clients, and this connection has its share',
      ],
    ],
  )
})

test('a reply that nobody reads is given up', async context => {
  const { path, client, server } = await serve(context, {
    services: big,
    limits: { replyMs: 1000, lookMs: 10 },
  })
  using raw = await RawClient.connect(path, { initialWindowSize: 0 })
  const call = raw.call(`${RUNTIME}/ListPodSandbox`, EMPTY)
  assert.deepEqual(await call.ended, { reset: CALM })
  await until('nothing is held', () => server.limits.heldBytes === 0 && server.limits.openCalls === 0)
  assert.equal((await client.runtime('Version', {})).runtime_name, 'berth')
})

test('the messages of a stream may wait longer than a reply, and not for ever', async context => {
  const { path, server } = await serve(context, {
    services: big,
    limits: { replyMs: 1, messageMs: 300, lookMs: 10 },
  })
  using raw = await RawClient.connect(path, { initialWindowSize: 0 })
  const started = performance.now()
  const call = raw.call(`${RUNTIME}/StreamPodSandboxes`, EMPTY)
  assert.deepEqual(await call.ended, { reset: CALM })
  assert.ok(performance.now() - started >= 300)
  await until('nothing is held', () => server.limits.heldBytes === 0 && server.limits.openCalls === 0)
})

test('a connection that is not read at all ends', async context => {
  const { path, server, recorded } = await serve(context, {
    services: big,
    limits: { replyMs: 1000, lookMs: 10 },
  })
  const socket = await deafClient(path, `${RUNTIME}/ListPodSandbox`, 5)
  context.after(() => socket.destroy())
  await until('its calls have come', () => recorded.metrics.length > 0)
  await until('its connection is gone', () => server.limits.connections === 0)
  await until('nothing is held', () => server.limits.heldBytes === 0 && server.limits.openCalls === 0)
})

test('a request that does not end is given up', async context => {
  const { path, client, server } = await serve(context, { limits: { requestMs: 50, lookMs: 10 } })
  using raw = await RawClient.connect(path)
  const silent = raw.call(`${RUNTIME}/Version`)
  const half = raw.call(`${RUNTIME}/Version`)
  half.stream.write(framed(Buffer.alloc(100)).subarray(0, 50))
  const nobodys = raw.call('/nobody/Knows')
  const noCall = raw.call(`${RUNTIME}/Version`, undefined, { 'content-type': 'text/plain' })
  for (const call of [silent, half]) assert.deepEqual(await call.ended, { reset: CALM })
  assert.deepEqual((await nobodys.ended).status, status.UNIMPLEMENTED)
  await noCall.ended
  await until('no call is left', () => server.limits.openCalls === 0)
  assert.equal((await client.runtime('Version', {})).runtime_name, 'berth')
})

test('requests that arrive and never end take the share of their connection', async context => {
  const { path, client, server, recorded } = await serve(context, {
    services: fakeServices({ pods: { run: async () => 'id' } }),
    limits: { maxHeldBytes: 8 * MIB },
  })
  using raw = await RawClient.connect(path)
  const part = framed(Buffer.alloc(2 * MIB)).subarray(0, MIB)
  const calls = Array.from({ length: 12 }, () => {
    const call = raw.call(`${RUNTIME}/RunPodSandbox`)
    call.stream.write(part)
    return call
  })
  await until(
    'those beyond the share are refused',
    () => calls.filter(({ end }) => end !== undefined).length >= 8,
  )
  assert.ok(server.limits.heldBytes <= 4 * MIB)
  const refused = calls.flatMap(({ end }) => end ?? [])
  for (const end of refused) {
    assert.equal(end.status, status.RESOURCE_EXHAUSTED)
    assert.match(
      end.message!,
      /^cannot take this request: \d MiB are held for clients, and this connection has its/,
    )
  }
  const config = {
    metadata: { name: 'a', uid: 'b', namespace: 'c' },
    annotations: { big: 'x'.repeat(MIB - 10) },
  }
  assert.deepEqual(await client.runtime('RunPodSandbox', { config }), { pod_sandbox_id: 'id' })
  assert.equal(recorded.lines.filter(({ message }) => message === 'call refused').length, 1)
})

test('a compressed request counts as the largest that it can be', async context => {
  const { path, client } = await serve(context, { limits: { maxHeldBytes: 64 * MIB } })
  using raw = await RawClient.connect(path)
  const gzip = { 'grpc-encoding': 'gzip' }
  const whole = raw.call(`${RUNTIME}/Version`, framed(gzipSync(Buffer.alloc(0)), true), gzip)
  assert.equal((await whole.ended).status, status.OK)
  const waiting = Array.from({ length: 3 }, () => raw.call(`${RUNTIME}/Version`, undefined, gzip))
  const third = await waiting[2]!.ended
  assert.equal(third.status, status.RESOURCE_EXHAUSTED)
  assert.match(third.message!, /^cannot unpack this request: 32 MiB are held/)
  const bomb = raw.call('/runtime.v1.RuntimeService/Version', framed(gzipSync(Buffer.alloc(17 * MIB)), true))
  await bomb.ended
  assert.equal((await client.runtime('Version', {})).runtime_name, 'berth')
})

test('no connection has more calls than are left for others', async context => {
  const { path, client, server, recorded } = await serve(context, { limits: { maxCalls: 30 } })
  const clients = [
    await RawClient.connect(path),
    await RawClient.connect(path),
    await RawClient.connect(path),
  ]
  context.after(() => {
    for (const raw of clients) raw[Symbol.dispose]()
  })
  assert.equal(clients[0]!.session.remoteSettings.maxConcurrentStreams, 15)
  const open = []
  // One holds 15 of 30, the next 7 of the other 15, the last 4 of the other 8: so many are left each time.
  for (const [index, raw] of clients.entries()) {
    const calls = Array.from({ length: 15 }, () => raw.call(`${RUNTIME}/Version`))
    const refused = () => calls.filter(({ end }) => end !== undefined)
    await until('what is too much is refused', () => refused().length === [0, 8, 11][index])
    open.push(calls)
  }
  const refused = open.flat().flatMap(({ end }) => end ?? [])
  assert.ok(
    refused.every(end => end.status === status.RESOURCE_EXHAUSTED),
    JSON.stringify(refused),
  )
  assert.equal((await client.runtime('Version', {})).runtime_name, 'berth', 'one that has none gets one')
  assert.ok(server.limits.openCalls <= 30)
  assert.equal(recorded.lines.filter(({ message }) => message === 'call refused').length, 2)
})

test('no process has more connections than are left for others', async context => {
  let pid = 1
  const { path, client, server, recorded } = await serve(context, {
    peerOf: () => ({ pid, uid: process.getuid!(), gid: 0, groups: [], command: 'test' }),
    limits: { maxConnections: 8 },
  })
  const connectMany = async (count: number) => {
    const before = server.limits.connections
    const sockets = Array.from({ length: count }, () => connect(path))
    context.after(() => {
      for (const socket of sockets) socket.destroy()
    })
    let closed = 0
    for (const socket of sockets) socket.on('error', () => undefined).on('close', () => closed++)
    await until('each was taken or closed', () => server.limits.connections - before + closed === count)
    return sockets.filter(socket => !socket.destroyed)
  }
  const version = async () => (await client.runtime('Version', {})).runtime_name
  assert.equal(await version(), 'berth')
  // The client is one of its four.
  const first = await connectMany(10)
  assert.equal(first.length, 3)
  pid = 2
  assert.equal((await connectMany(10)).length, 2)
  assert.equal(await version(), 'berth')
  const refusals = recorded.lines.filter(({ message }) => /connection refused/.test(message))
  assert.deepEqual(
    refusals.map(({ pid, connections }) => [pid, connections]),
    [
      [1, 4],
      [2, 6],
    ],
  )
  for (const socket of first) socket.destroy()
  await until('their places are free', () => server.limits.connections === 3)
  assert.equal((await connectMany(1)).length, 1)
})

test('metadata beyond what a connection may send is no call', async context => {
  const { path, client } = await serve(context)
  using raw = await RawClient.connect(path)
  const call = raw.call(`${RUNTIME}/Version`, EMPTY, { 'x-big': 'x'.repeat(MIB) })
  const { status: got } = await call.ended
  assert.notEqual(got, status.OK)
  assert.equal((await client.runtime('Version', {})).runtime_name, 'berth')
})
