import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { Client, credentials, Metadata, status } from '@grpc/grpc-js'
import { fakeServices, protoDir, sampleContainer, sampleImage, samplePod } from '../../test/support/cri.ts'
import { listen, serve, temporaryDir } from '../../test/support/cri-server.ts'
import { dict } from '../base/dict.ts'
import { BerthClient } from './client.ts'
import { loadServices } from './proto.ts'

test('a message of 15 MiB passes in both directions, one of 17 MiB in none', async context => {
  const text = 'x'.repeat(15 * 2 ** 20)
  const more = `${text}${'x'.repeat(2 * 2 ** 20)}`
  const pod = samplePod()
  let listed = text
  const { client } = await serve(context, {
    services: fakeServices({
      pods: { list: () => [{ ...pod, config: { ...pod.config, annotations: dict([['big', listed]]) } }] },
      images: { list: reference => [sampleImage({ repoTags: [String(reference.length)] })] },
    }),
  })
  const sent = async (image: string) =>
    (await client.image('ListImages', { filter: { image: { image } } })).images
  assert.deepEqual((await sent(text))[0]!.repo_tags, [String(text.length)])
  const { items } = await client.runtime('ListPodSandbox', {})
  assert.equal(items[0]!.annotations.big, text)
  await assert.rejects(sent(more), { code: 'exhausted' })
  listed = more
  await assert.rejects(client.runtime('ListPodSandbox', {}), { code: 'exhausted' })
})

test('a method that does not exist is UNIMPLEMENTED', async context => {
  const { path } = await serve(context)
  const client = new Client(`unix:${path}`, credentials.createInsecure())
  context.after(() => client.close())
  const { promise, resolve } = Promise.withResolvers<number | undefined>()
  const same = (buffer: Buffer) => buffer
  client.makeUnaryRequest('/runtime.v1.RuntimeService/Nonsense', same, same, Buffer.alloc(0), error =>
    resolve(error?.code),
  )
  assert.equal(await promise, status.UNIMPLEMENTED)
})

test('calls that come with later work are UNIMPLEMENTED', async context => {
  const { client } = await serve(context)
  const unimplemented = { code: 'unimplemented' }
  await assert.rejects(client.runtime('CheckpointContainer', { container_id: 'x' }), unimplemented)
})

test('a deadline that passes aborts the signal of the call', async context => {
  const { promise: reason, resolve } = Promise.withResolvers<unknown>()
  const { path } = await serve(context, {
    services: fakeServices({
      containers: {
        start: (_, signal) => {
          const { promise, reject } = Promise.withResolvers<void>()
          signal.addEventListener('abort', () => {
            resolve(signal.reason)
            reject(signal.reason)
          })
          return promise
        },
      },
    }),
  })
  const hasty = await BerthClient.connect(path, protoDir, { timeoutMs: 50 })
  context.after(() => hasty[Symbol.dispose]())
  await assert.rejects(hasty.runtime('StartContainer', { container_id: 'x' }), { code: 'deadline' })
  assert.equal(((await reason) as { code: string }).code, 'deadline')
})

test('a client that leaves aborts the signal of the call', async context => {
  const { promise: started, resolve: start } = Promise.withResolvers<AbortSignal>()
  const { path, recorded } = await serve(context, {
    services: fakeServices({
      containers: {
        start: (_, signal) => {
          start(signal)
          const { promise, reject } = Promise.withResolvers<void>()
          signal.addEventListener('abort', () => reject(signal.reason))
          return promise
        },
      },
    }),
  })
  const client = new Client(`unix:${path}`, credentials.createInsecure())
  context.after(() => client.close())
  const { StartContainer } = loadServices(protoDir).runtime
  const call = client.makeUnaryRequest(
    StartContainer.path,
    StartContainer.requestSerialize,
    StartContainer.responseDeserialize,
    { container_id: 'x' },
    new Metadata(),
    () => undefined,
  )
  const signal = await started
  const aborted = new Promise(resolve => signal.addEventListener('abort', resolve))
  call.cancel()
  await aborted
  assert.equal(signal.reason.code, 'cancelled')
  await new Promise(setImmediate)
  assert.deepEqual(recorded.metrics, ['StartContainer CANCELLED'])
})

test('every call is UNAVAILABLE while the daemon recovers', async context => {
  const { path, server } = await listen(context)
  const client = await BerthClient.connect(path, protoDir, { timeoutMs: 5000 })
  context.after(() => client[Symbol.dispose]())
  const recovering = { code: 'unavailable', message: 'berth is recovering' }
  await assert.rejects(client.runtime('Version', {}), recovering)
  await assert.rejects(client.image('ListImages', {}), recovering)
  await assert.rejects(client.admin('Status', {}), recovering)
  await assert.rejects(client.runtimeStream('StreamContainers', {}).next(), recovering)
  server.open()
  assert.deepEqual(await client.runtime('Version', {}), {
    version: '0.1.0',
    runtime_name: 'berth',
    runtime_version: '1.2.3',
    runtime_api_version: 'v1',
  })
})

test('the socket has its mode, replaces one left behind and goes when the server closes', async context => {
  const path = join(temporaryDir(context), 'below', 'berth.sock')
  const first = await listen(context, { socketPath: path })
  assert.equal(statSync(path).mode & 0o777, 0o660)
  const second = await listen(context, { socketPath: path })
  await first.server.close(0)
  assert.equal(statSync(path).isSocket(), true, "the successor's socket stays")
  await second.server.close(0)
  assert.throws(() => statSync(path), { code: 'ENOENT' })
})

test('a socket that nobody listens on any more is replaced', async context => {
  const path = join(temporaryDir(context), 'berth.sock')
  const other = createServer().listen(path)
  context.after(() => other.close())
  const { client } = await serve(context, { socketPath: path })
  assert.equal((await client.admin('Status', {})).version, '1.2.3')
})

test('what is not a socket is left alone', async context => {
  const path = join(temporaryDir(context), 'berth.sock')
  writeFileSync(path, 'precious')
  await assert.rejects(listen(context, { socketPath: path }), {
    code: 'precondition',
    message: /not a socket/,
  })
  assert.equal(statSync(path).size, 8)
})

test('a path that no socket can have is refused', async context => {
  const tooLong = join(temporaryDir(context), 'x'.repeat(100))
  await assert.rejects(listen(context, { socketPath: tooLong }), {
    code: 'invalid',
    message: /at most 107 bytes/,
  })
  await assert.rejects(listen(context, { socketPath: 'berth.sock' }), {
    code: 'invalid',
    message: /absolute/,
  })
})

const stranger = { pid: 9, uid: 65_534, gid: 65_534, groups: [7, 8], command: 'curl' }

test('a peer that is neither root nor ourselves is turned away, and told of once a minute', async context => {
  const { path, server, recorded } = await listen(context, { peerOf: () => stranger })
  server.open()
  for (let tries = 0; tries < 3; tries++) {
    const client = await BerthClient.connect(path, protoDir, { timeoutMs: 300 })
    context.after(() => client[Symbol.dispose]())
    await assert.rejects(client.runtime('Version', {}))
  }
  assert.deepEqual(recorded.lines, [
    {
      level: 'warn',
      message: 'connection refused: its user is not root, nor allowed by listen_group or listen_uids',
      pid: 9,
      uid: 65_534,
      gid: 65_534,
      command: 'curl',
    },
  ])
})

for (const allowedPeers of [
  { uids: [1, 65_534], gids: [] },
  { uids: [], gids: [65_534] },
  { uids: [], gids: [8] },
]) {
  test(`a peer that ${JSON.stringify(allowedPeers)} allows is served`, async context => {
    const { client } = await serve(context, { peerOf: () => stranger, allowedPeers })
    await client.runtime('Version', {})
  })
}

test('each connection, and each call, tells which process it is from', async context => {
  const { client, recorded } = await serve(context, {
    peerOf: () => stranger,
    allowedPeers: { uids: [65_534], gids: [] },
  })
  await client.runtime('StopContainer', { container_id: 'x', timeout: 1 })
  assert.deepEqual(
    recorded.lines.map(({ message, peer, command }) => [message, peer ?? command]),
    [
      ['client connected', 'curl'], // asks whether anybody is there
      ['client connected', 'curl'],
      ['call served', 'curl[9]'],
    ],
  )
})

test('closing ends streams, lets calls finish and then takes no more', async context => {
  const finish = Promise.withResolvers<void>()
  const started = Promise.withResolvers<void>()
  const subscribed = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<void>()
  const { client, server } = await serve(context, {
    services: fakeServices({
      containers: {
        start: () => {
          started.resolve()
          return finish.promise
        },
      },
      events: {
        subscribe: () => ({
          [Symbol.asyncIterator]: () => ({
            next: async () => {
              subscribed.resolve()
              await ended.promise
              return { done: true, value: undefined }
            },
          }),
          [Symbol.dispose]: () => ended.resolve(),
        }),
      },
    }),
  })
  const events = client.runtimeStream('GetContainerEvents', {}).next()
  const start = client.runtime('StartContainer', { container_id: 'x' })
  await Promise.all([started.promise, subscribed.promise])
  const closed = server.close(5000)
  await assert.rejects(events, { code: 'unavailable', message: /shutting down/ })
  finish.resolve()
  assert.deepEqual(await start, {})
  await closed
  await assert.rejects(client.runtime('Version', {}), { code: 'unavailable' })
})

test('closing cuts a call that does not end in time', async context => {
  const started = Promise.withResolvers<void>()
  const { client, server } = await serve(context, {
    services: fakeServices({
      containers: {
        start: (_, signal) => {
          started.resolve()
          return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        },
      },
    }),
  })
  const start = client.runtime('StartContainer', { container_id: 'x' })
  await started.promise
  await Promise.all([server.close(20), assert.rejects(start, { code: /cancelled|unavailable/ })])
})

test('a list stream has every item once, in messages of at most a hundred', async context => {
  const ids = Array.from({ length: 250 }, (_, index) => String(index).padStart(64, '0'))
  const { client } = await serve(context, {
    services: fakeServices({ containers: { list: () => ids.map(id => sampleContainer({ id })) } }),
  })
  const sizes: number[] = []
  const seen: string[] = []
  for await (const { containers } of client.runtimeStream('StreamContainers', {})) {
    sizes.push(containers.length)
    seen.push(...containers.map(container => container.id))
  }
  assert.deepEqual(sizes, [100, 100, 50])
  assert.deepEqual(seen, ids)
})

test('without a daemon the client says where it looked and how to start one', async context => {
  const path = join(temporaryDir(context), 'berth.sock')
  const connect = () => BerthClient.connect(path, protoDir, { timeoutMs: 1000 })
  const names = new RegExp(`there is no socket ${path}; start it with`)
  await assert.rejects(connect(), { code: 'precondition', message: names })
})
