import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestRegistry } from '../../test/support/registry.ts'
import {
  checkLayer,
  mirrors,
  resolve,
  saying,
  smallImage,
  startClient,
  startProxy,
  startServer,
} from '../../test/support/registry-client.ts'

test('mirrors are asked in order; what one lacks or breaks, the next gives', async t => {
  const [first, second, own] = await Promise.all([startServer(t), startServer(t), startServer(t)])
  const pushed = await smallImage()
  for (const registry of [first, second, own]) registry.push(pushed, 'app', 'v1')
  const berth = startClient(t, mirrors(first.address, second.address, own.address))
  await checkLayer(berth, 'registry.test/app:v1', pushed)
  assert.equal(second.requests.length + own.requests.length, 0)

  first.faults({ match: /./, status: 503 })
  await checkLayer(berth, 'registry.test/app:v1', pushed)
  assert.equal(first.requestsTo(/manifests/).length, 2, 'a mirror is not tried again')
  assert.equal(first.requestsTo(/blobs/).length, 1, 'a mirror without the manifest is not asked for blobs')
  assert.equal(own.requests.length, 0)

  second.removeBlob('app', pushed.layers[0]!.blob.digest)
  await checkLayer(berth, 'registry.test/app:v1', pushed)
  second.push(pushed, 'app', 'v1')
  own.requests.length = 0
  second.faults({ match: /blobs/, cutAt: 100_000, times: 1 }, { match: /blobs/, status: 500 })
  await checkLayer(berth, 'registry.test/app:v1', pushed)
  assert.deepEqual(
    own.requestsTo(/blobs/).map(request => request.headers.range),
    ['bytes=100000-'],
  )
})

test('the last endpoint is tried again after a pause, as often as the policy says', async t => {
  const registry = await startServer(t)
  registry.push(await smallImage(), 'app', 'v1')
  const name = `${registry.address}/app:v1`
  for (const fault of [{ status: 500 }, { status: 429, retryAfter: '3600' }, { status: 408 }, { cutAt: 0 }]) {
    registry.faults({ match: /manifests/, times: 2, ...fault })
    await resolve(startClient(t), name)
    registry.requests.length = 0
    registry.faults({ match: /manifests/, ...fault })
    await assert.rejects(
      resolve(startClient(t), name),
      saying('unknown', /^RegistryUnavailable: .*\(3 tries\)$/),
    )
    assert.equal(registry.requestsTo(/manifests/).length, 3)
  }
})

test('the error names every endpoint with its cause; the registry itself decides what it is', async t => {
  const [mirror, own] = await Promise.all([startServer(t), startServer(t)])
  const dead = await TestRegistry.start()
  await dead.close()
  const both = startClient(t, mirrors(dead.address, mirror.address, own.address))
  await assert.rejects(
    resolve(both, 'registry.test/nope:v1'),
    saying(
      'not-found',
      new RegExp(
        `^registry.test/nope:v1: not found: .*${dead.address}.*ECONNREFUSED.*; http://${mirror.address}/v2/nope/manifests/v1: 404 NAME_UNKNOWN: repository name not known to registry; http://${own.address}.*404`,
      ),
    ),
  )
  own.faults({
    match: /./,
    status: 403,
    body: '{"errors":[{"code":"DENIED","message":"bad\\u001b[31m\\nline"}]}',
  })
  await assert.rejects(
    resolve(both, 'registry.test/nope:v1'),
    saying('unknown', /access denied: .*403 DENIED: bad \[31m line/),
  )
  await assert.rejects(
    resolve(startClient(t, mirrors(dead.address)), 'registry.test/x'),
    saying('unknown', /^RegistryUnavailable: registry.test\/x:latest: .*ECONNREFUSED/),
  )
})

test('a proxy carries what NO_PROXY does not exempt', async t => {
  const registry = await startServer(t)
  registry.push(await smallImage(), 'app', 'v1')
  const proxy = await startProxy(t, { 'images.test': registry.address })
  const address = `http://anna:geheim@${proxy.address}`
  const berth = startClient(t, '', {
    insecureRegistries: ['images.test', 'direct.test:1'],
    proxy: { http: address, https: address, noProxy: 'direct.test' },
  })
  await resolve(berth, 'images.test/app:v1')
  const basic = `Basic ${Buffer.from('anna:geheim').toString('base64')}`
  assert.deepEqual(proxy.requests, [
    `CONNECT images.test:443 ${basic}`,
    `GET http://images.test/v2/app/manifests/v1 ${basic}`,
  ])
  proxy.requests.length = 0
  await assert.rejects(resolve(berth, 'direct.test:1/app:v1'), saying('unknown', /direct\.test/))
  assert.deepEqual(proxy.requests, [])
  await assert.rejects(resolve(berth, 'unknown.test/app:v1'), saying('unknown', /^RegistryUnavailable: /))
})
