import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { FakeSnapshots } from '../../test/support/fake-snapshots.ts'
import { ImageHost, type ImageHostOptions, recordingLog } from '../../test/support/image-host.ts'
import { imageOf, type TestImage } from '../../test/support/images.ts'
import { layerOf } from '../../test/support/layers.ts'
import type { LogFields } from '../observe/log.ts'

async function start(t: TestContext, options: ImageHostOptions = {}): Promise<{ readonly host: ImageHost }> {
  const snapshots = new FakeSnapshots()
  t.after(() => snapshots.remove())
  return { host: await ImageHost.start(t, snapshots, options) }
}

async function image(texts: readonly string[]): Promise<TestImage> {
  const layers = texts.map(text => layerOf([{ name: text, content: text.repeat(1000) }]))
  return imageOf(await Promise.all(layers), { architecture: 'amd64' })
}

test('a pull tells what it took: log line, metrics, endpoint', async t => {
  const lines: LogFields[] = []
  const pulls: Array<string | undefined> = []
  const bytes: number[] = []
  const { host } = await start(t, {
    log: recordingLog(lines),
    observer: {
      onPull: (_seconds, failure) => pulls.push(failure),
      onDownload: network => bytes.push(network),
    },
  })
  const base = await image(['base'])
  const pushed = await image(['base', 'one', 'two'])
  host.server.push(base, 'base', 'latest')
  host.server.push(pushed, 'app', 'latest')
  await host.pull('base')
  await host.pull('app')
  const line = lines.findLast(({ imageId }) => imageId === pushed.id)!
  const { resolveMs, downloadMs, unpackMs, commitMs, ms, ...rest } = line
  const fetched = pushed.layers.slice(1).reduce((sum, { blob }) => sum + blob.size, 0)
  assert.deepEqual(rest, {
    image: host.name('app:latest'),
    imageId: pushed.id,
    bytes: host.images.status(pushed.id)!.size,
    layers: 3,
    reused: 1,
    downloaded: fetched,
    resumed: 0,
    endpoint: host.server.address,
  })
  const steps = [resolveMs, downloadMs, unpackMs, commitMs].map(Number)
  assert.ok(Math.abs(steps.reduce((sum, step) => sum + step, 0) - Number(ms)) <= 4)

  await host.pull('app')
  assert.deepEqual([lines.at(-1)!.reused, lines.at(-1)!.endpoint], [3, host.server.address])
  await assert.rejects(host.pull('nothing'))
  host.server.push(await image(['three']), 'broken', 'latest')
  host.server.faults({ match: /blobs/, corrupt: true })
  await assert.rejects(host.pull('broken'))
  assert.deepEqual(pulls, [undefined, undefined, undefined, 'not-found', 'other'])
  assert.equal(
    bytes.reduce((sum, count) => sum + count, 0),
    fetched + base.layers[0]!.blob.size,
  )
})

test('what a broken download left is used by the next daemon, and not if it is wrong', async t => {
  const { host } = await start(t, { partials: { afterMs: 0, ttlMs: 60_000 } })
  const content = Buffer.alloc(400_000, 'berth ')
  const pushed = imageOf([await layerOf([{ name: 'file', content }], 'none')], { architecture: 'amd64' })
  const { blob } = pushed.layers[0]!
  host.server.push(pushed, 'app', 'latest')
  const sent = () => {
    const requests = host.server.requestsTo(/^GET /).filter(({ path }) => path.endsWith(blob.digest))
    host.server.requests.length = 0
    return requests.reduce((sum, request) => sum + request.sent, 0)
  }
  const breakOff = async () => {
    host.server.faults({ match: new RegExp(blob.digest), stallAt: 300_000 })
    const abort = new AbortController()
    const broken = assert.rejects(host.pull('app', { signal: abort.signal }))
    while (host.kept() < 300_000) await turn()
    abort.abort()
    await broken
    await host.restart()
    host.server.faults()
  }
  await breakOff()
  sent()
  await host.pull('app')
  assert.equal(sent(), blob.size - 300_000)
  assert.equal(host.kept(), 0)

  await host.images.remove(host.name('app'))
  await breakOff()
  host.spoilKept()
  sent()
  await host.pull('app')
  assert.equal(sent(), blob.size - 300_000 + blob.size)
  assert.equal(host.kept(), 0)
})
