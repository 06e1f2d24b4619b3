import assert from 'node:assert/strict'
import { test } from 'node:test'
import { imageOf, type TestImage, withManifest } from '../../test/support/images.ts'
import { layerOf } from '../../test/support/layers.ts'
import type { TestRegistry } from '../../test/support/registry.ts'
import {
  checkLayer,
  saying,
  signal,
  smallImage,
  startClient,
  startServer,
} from '../../test/support/registry-client.ts'
import { until } from '../../test/support/wait.ts'
import { parseReference } from './reference.ts'
import type { PartialBlob } from './registry.ts'

test('a configuration is held to its size, its digest and the caller’s limit', async t => {
  const registry = await startServer(t)
  const berth = startClient(t)
  registry.push(await smallImage(), 'app', 'v1')
  const repository = berth.repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { config } = await repository.resolve(signal)
  await assert.rejects(repository.readBlob(config, 10, signal), saying('unknown', /at most 10 are allowed/))
  registry.faults({ match: /blobs/, corrupt: true })
  await assert.rejects(
    repository.readBlob(config, 1000, signal),
    saying('unknown', /content received has digest/),
  )
  registry.faults({ match: /blobs/, extraBytes: 5 })
  await assert.rejects(
    repository.readBlob(config, 1000, signal),
    saying('unknown', /announces \d+ bytes; expected/),
  )
  registry.faults({ match: /blobs/, extraBytes: 5, chunked: true })
  await assert.rejects(
    repository.readBlob(config, 1000, signal),
    saying('unknown', /more than the \d+ bytes/),
  )
})

test('a broken download goes on where it stopped', async t => {
  const registry = await startServer(t)
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const cases: ReadonlyArray<
    [what: string, faults: Parameters<typeof registry.faults>, ranges: ReadonlyArray<string | undefined>]
  > = [
    ['twice', [{ match: /blobs/, cutAt: 100_000, times: 2 }], [undefined, 'bytes=100000-', 'bytes=200000-']],
    ['at once', [{ match: /blobs/, cutAt: 0, times: 1 }], [undefined, undefined]],
    [
      'no ranges',
      [
        { match: /blobs/, cutAt: 100_000, times: 1 },
        { match: /blobs/, ignoreRange: true },
      ],
      [undefined, 'bytes=100000-'],
    ],
    [
      '416',
      [
        { match: /blobs/, cutAt: 100_000, times: 1 },
        { match: /blobs/, status: 416, times: 1 },
      ],
      [undefined, 'bytes=100000-', undefined],
    ],
    ['503', [{ match: /blobs/, status: 503, times: 2 }], [undefined, undefined, undefined]],
  ]
  for (const [what, faults, ranges] of cases) {
    registry.requests.length = 0
    registry.faults(...faults)
    await checkLayer(startClient(t), name, pushed)
    const blobs = registry.requestsTo(/blobs/)
    assert.deepEqual(
      blobs.map(request => request.headers.range),
      ranges,
      what,
    )
    assert.ok(blobs.every(request => request.headers['accept-encoding'] === 'identity'))
  }
})

test('a download that stalls or answers about other bytes ends in an error', async t => {
  const registry = await startServer(t)
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  registry.faults({ match: /blobs/, cutAt: 100_000, times: 1 }, { match: /blobs/, stallAt: 0 })
  await assert.rejects(
    checkLayer(
      startClient(t, '', { progressTimeoutMs: 50, retry: { tries: 1, baseMs: 1, maxMs: 1 } }),
      name,
      pushed,
    ),
    saying('unknown', /^RegistryUnavailable: .*no further bytes within the progress timeout/),
  )
  registry.faults({ match: /blobs/, cutAt: 100_000, times: 1 }, { match: /blobs/, wrongRange: true })
  await assert.rejects(
    checkLayer(startClient(t), name, pushed),
    saying('unknown', /asked for bytes 100000- of \d+, got "bytes 100001-/),
  )
  registry.faults({ match: /blobs/, headers: { 'Content-Encoding': 'gzip' } })
  await assert.rejects(checkLayer(startClient(t), name, pushed), saying('unknown', /Content-Encoding "gzip"/))
})

test('progress is told, and a stream that is dropped or cancelled stops the request', async t => {
  const registry = await startServer(t)
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const repository = startClient(t).repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { layers } = await repository.resolve(signal)
  const totals: number[] = []
  await repository.openBlob(layers[0]!, signal, { onBytes: total => totals.push(total) }).toArray()
  assert.equal(totals.at(-1), layers[0]!.size)
  assert.ok(totals.every((total, index) => index === 0 || total > totals[index - 1]!))

  registry.faults({ match: /blobs/, stallAt: 1000 })
  const dropped = repository.openBlob(layers[0]!, signal)
  for await (const chunk of dropped) {
    assert.equal(chunk.length, 1000)
    dropped.read(0) // waits for more while it is dropped
    break
  }
  await until('what it waited for was broken off', () => dropped.closed)
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(dropped.hasFailed, false)
  const abort = new AbortController()
  const cancelled = repository.openBlob(layers[0]!, abort.signal)
  await assert.rejects(
    async () => {
      for await (const _ of cancelled) abort.abort()
    },
    saying('cancelled', /cancelled/),
  )
  await assert.rejects(repository.resolve(AbortSignal.abort()), saying('cancelled', /cancelled/))
})

test('an answer that is not used holds no connection', async t => {
  const registry = await startServer(t)
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const faults = [
    { wrongRange: true },
    { headers: { 'Content-Encoding': 'gzip' } },
    { extraBytes: 1 },
    { extraBytes: 1, chunked: true },
    { status: 401, body: 'x'.repeat(1 << 20), headers: { 'WWW-Authenticate': 'Bearer realm="ftp://x"' } },
    { status: 307, body: 'x'.repeat(1 << 20) },
  ]
  for (const fault of faults) {
    const first = 'wrongRange' in fault ? [{ match: /blobs/, cutAt: 1000, times: 1 }] : []
    // Slow enough that an answer left alone would still be on its way.
    registry.faults(...first, { match: /blobs/, trickle: 10_000, ...fault })
    await assert.rejects(checkLayer(startClient(t), name, pushed), JSON.stringify(fault).slice(0, 80))
    await idle(registry, JSON.stringify(fault).slice(0, 80))
  }
  registry.faults({ match: /blobs/, trickle: 1000 })
  const repository = startClient(t).repository(parseReference(name), undefined)
  const { layers } = await repository.resolve(signal)
  for await (const _ of repository.openBlob(layers[0]!, signal)) break
  await idle(registry)
})

test('a stream that nobody has begun to read asks nothing, and its failure ends nothing', async t => {
  const registry = await startServer(t)
  registry.push(await smallImage(), 'app', 'v1')
  const repository = startClient(t).repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { layers } = await repository.resolve(signal)
  const abort = new AbortController()
  const stream = repository.openBlob(layers[0]!, abort.signal)
  abort.abort()
  // An unhandled 'error' event would come now.
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(registry.requestsTo(/blobs/).length, 0)
  await assert.rejects(stream.toArray(), saying('cancelled', /cancelled/))
})

test('a foreign layer comes from the registry if it has it, and never over http', async t => {
  const registry = await startServer(t)
  const good = await smallImage()
  const document = JSON.parse(good.manifest.toString())
  document.layers[0].mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar'
  document.layers[0].urls = [`${registry.url}/stolen`]
  const foreign = withManifest(good, document)
  registry.push(foreign, 'app', 'v1')
  await checkLayer(startClient(t), `${registry.address}/app:v1`, good)
  registry.removeBlob('app', good.layers[0]!.blob.digest)
  await assert.rejects(
    checkLayer(startClient(t), `${registry.address}/app:v1`, good),
    saying('unknown', /404.*names a URL that is not https/),
  )
  assert.equal(registry.requestsTo(/stolen/).length, 0)
  document.layers[0].mediaType = 'application/vnd.oci.image.layer.v1.tar'
  registry.push(withManifest(good, document), 'app', 'v2')
  const repository = startClient(t).repository(parseReference(`${registry.address}/app:v2`), undefined)
  assert.equal((await repository.resolve(signal)).layers[0]?.urls, undefined)
})

const CHUNK = 64 * 1024

/** The server learns of a closed connection a moment later. */
async function idle(registry: TestRegistry, when = ''): Promise<void> {
  await until(`no connection is busy ${when}`, async () => (await registry.busyConnections()) === 0)
}

/** One plain layer of a megabyte in which no two parts are the same. */
async function largeImage(): Promise<TestImage> {
  const content = Buffer.alloc(1 << 20)
  for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(at, at)
  return imageOf([await layerOf([{ name: 'file', content }], 'none')])
}

test('a large layer comes in parts, several at once when bytes have to be waited for', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const client = () => startClient(t, '', { chunkSize: CHUNK, chunkConnections: 4 })
  const { size } = pushed.layers[0]!.blob
  const parts = Math.ceil(size / CHUNK)
  const ranges = () => registry.requestsTo(/blobs/).map(request => request.headers.range)
  const expected = Array.from({ length: parts }, (_, index) => {
    const end = (index + 1) * CHUNK
    return `bytes=${index * CHUNK}-${end >= size ? '' : end - 1}`
  })

  await checkLayer(client(), name, pushed)
  assert.deepEqual(ranges().toSorted(), expected.toSorted())

  // Each part takes 80 ms, so that the reader waits; all come once, and some of them at the same time.
  registry.requests.length = 0
  registry.faults({ match: /blobs/, trickle: CHUNK / 8 })
  let most = 0
  const watch = setInterval(() => {
    const running = registry.requestsTo(/blobs/).filter(({ headers, sent }) => {
      const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? []
      return sent < (to ? Number(to) + 1 : size) - Number(from)
    })
    most = Math.max(most, running.length)
  }, 1)
  t.after(() => clearInterval(watch))
  await checkLayer(client(), name, pushed)
  assert.deepEqual(ranges().toSorted(), expected.toSorted())
  assert.ok(most > 1 && most <= 4, `${most} at once`)

  registry.requests.length = 0
  registry.faults()
  await checkLayer(startClient(t, '', { chunkSize: CHUNK, chunkConnections: 1 }), name, pushed)
  assert.deepEqual(ranges(), [undefined])
})

test('parts that fail are asked for again, and only what is missing of them', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  const { size } = pushed.layers[0]!.blob
  const name = `${registry.address}/app:v1`
  const cases = [
    { cutAt: 1000, times: 5 },
    { status: 503, after: 2, times: 2 },
    { status: 429, retryAfter: '0', after: 3, times: 2 },
    { status: 416, after: 4, times: 1 },
  ]
  for (const fault of cases) {
    registry.requests.length = 0
    registry.faults({ match: /blobs/, ...fault }, { match: /blobs/, trickle: CHUNK / 4 })
    await checkLayer(startClient(t, '', { chunkSize: CHUNK }), name, pushed)
    const sent = registry.requestsTo(/blobs/).reduce((sum, request) => sum + request.sent, 0)
    // After 416 everything is asked for once, and what of it is known is dropped.
    const most = fault.status === 416 ? 2 * size + 4 * CHUNK : size + 4 * CHUNK
    assert.ok(sent >= size && sent <= most, `${JSON.stringify(fault)}: ${sent} of ${size}`)
  }
  registry.faults({ match: /blobs/, after: 3, wrongRange: true })
  await assert.rejects(
    checkLayer(startClient(t, '', { chunkSize: CHUNK }), name, pushed),
    saying('unknown', /asked for bytes 196608-262143 of \d+, got "bytes 196609-/),
  )
  registry.faults({ match: /blobs/, after: 3, status: 404 })
  await assert.rejects(
    checkLayer(startClient(t, '', { chunkSize: CHUNK }), name, pushed),
    saying('not-found', /404/),
  )
  registry.faults({ match: /blobs/, after: 3, stallAt: 0 })
  const impatient = { chunkSize: CHUNK, progressTimeoutMs: 50, retry: { tries: 1, baseMs: 1, maxMs: 1 } }
  await assert.rejects(
    checkLayer(startClient(t, '', impatient), name, pushed),
    saying('unknown', /^RegistryUnavailable: .*no further bytes within the progress timeout/),
  )
})

test('a server that ignores ranges is read as one stream', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  registry.faults({ match: /blobs/, ignoreRange: true })
  await checkLayer(startClient(t, '', { chunkSize: CHUNK }), name, pushed)
  assert.equal(registry.requestsTo(/blobs/).length, 1)
  // Only from the fourth part on: what came is dropped once, and nothing further is asked for.
  registry.requests.length = 0
  registry.faults({ match: /blobs/, after: 3, ignoreRange: true })
  await checkLayer(startClient(t, '', { chunkSize: CHUNK }), name, pushed)
  assert.ok(registry.requestsTo(/blobs/).length <= 6, `${registry.requestsTo(/blobs/).length} requests`)
  await idle(registry)
})

test('parts that are on their way end with the stream', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  registry.faults({ match: /blobs/, trickle: CHUNK / 8 })
  const client = startClient(t, '', { chunkSize: CHUNK })
  const repository = client.repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { layers } = await repository.resolve(signal)
  let seen = 0
  for await (const chunk of repository.openBlob(layers[0]!, signal)) {
    seen += chunk.length
    if (seen > 6 * CHUNK) break
  }
  await idle(registry)
})

test('what an earlier download left is not asked for again', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  const { blob } = pushed.layers[0]!
  const bytes = blob.data as Buffer
  const [start, end] = [100_000, 700_000]
  for (const chunkSize of [CHUNK, 1 << 30]) {
    for (const ignoreRange of [false, true]) {
      registry.requests.length = 0
      registry.faults({ match: /blobs/, ignoreRange })
      const client = startClient(t, '', { chunkSize })
      const repository = client.repository(parseReference(`${registry.address}/app:v1`), undefined)
      const { layers } = await repository.resolve(signal)
      const written: Array<[offset: number, length: number]> = []
      const partial: PartialBlob = {
        start,
        end,
        async *read(offset) {
          yield bytes.subarray(offset, end)
        },
        write: (offset, chunk) => void written.push([offset, chunk.length]),
      }
      const stream = repository.openBlob(layers[0]!, signal, { partial })
      assert.ok(Buffer.concat(await stream.toArray()).equals(bytes))
      const sent = registry.requestsTo(/blobs/).reduce((sum, request) => sum + request.sent, 0)
      const { received, resumed, endpoint } = stream.traffic
      assert.deepEqual([received + resumed, endpoint], [blob.size, registry.address])
      assert.equal(
        written.reduce((sum, [, length]) => sum + length, 0),
        received,
      )
      if (ignoreRange) assert.equal(resumed, 0)
      else assert.deepEqual([sent, resumed], [blob.size - (end - start), end - start])
    }
  }
})

test('what an earlier download left and cannot be read is fetched again', async t => {
  const registry = await startServer(t)
  const pushed = await largeImage()
  registry.push(pushed, 'app', 'v1')
  const bytes = pushed.layers[0]!.blob.data as Buffer
  const repository = startClient(t).repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { layers } = await repository.resolve(signal)
  const partial: PartialBlob = {
    start: 0,
    end: 700_000,
    async *read() {
      yield bytes.subarray(0, 1000)
      throw new Error('EIO: i/o error, read')
    },
    write: () => undefined,
  }
  const stream = repository.openBlob(layers[0]!, signal, { partial })
  assert.ok(Buffer.concat(await stream.toArray()).equals(bytes))
  assert.equal(stream.traffic.resumed, 1000)
})
