import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withManifest } from '../../test/support/images.ts'
import {
  checkLayer,
  saying,
  signal,
  smallImage,
  startClient,
  startServer,
} from '../../test/support/registry-client.ts'
import { parseReference } from './reference.ts'

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
  await (await repository.openBlob(layers[0]!, signal, total => totals.push(total))).toArray()
  assert.equal(totals.at(-1), layers[0]!.size)
  assert.ok(totals.every((total, index) => index === 0 || total > totals[index - 1]!))

  registry.faults({ match: /blobs/, stallAt: 1000 })
  const dropped = await repository.openBlob(layers[0]!, signal)
  for await (const chunk of dropped) {
    assert.equal(chunk.length, 1000)
    break
  }
  const abort = new AbortController()
  const cancelled = await repository.openBlob(layers[0]!, abort.signal)
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
    assert.equal(await registry.busyConnections(), 0, JSON.stringify(fault).slice(0, 80))
  }
  registry.faults({ match: /blobs/, trickle: 1000 })
  const repository = startClient(t).repository(parseReference(name), undefined)
  const { layers } = await repository.resolve(signal)
  for await (const _ of await repository.openBlob(layers[0]!, signal)) break
  assert.equal(await registry.busyConnections(), 0)
})

test('a stream that nobody has begun to read asks nothing, and its failure ends nothing', async t => {
  const registry = await startServer(t)
  registry.push(await smallImage(), 'app', 'v1')
  const repository = startClient(t).repository(parseReference(`${registry.address}/app:v1`), undefined)
  const { layers } = await repository.resolve(signal)
  const abort = new AbortController()
  const stream = await repository.openBlob(layers[0]!, abort.signal)
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
