import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { TestRegistry } from '../../test/support/registry.ts'
import {
  checkLayer,
  mirrors,
  resolve,
  saying,
  signal,
  smallImage,
  startClient,
  startServer,
  temporaryDirectory,
} from '../../test/support/registry-client.ts'
import { Credentials } from './credentials.ts'
import { parseReference } from './reference.ts'

test('basic and bearer authentication, anonymous and with credentials', async t => {
  const secret = { username: 'anna', password: 'geheim' }
  const auth = { ...secret, identityToken: 'refresh', registryToken: 'direct' }
  const registry = await startServer(t)
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const password = Credentials.from(secret)
  registry.auth = { kind: 'basic', ...auth }
  await resolve(startClient(t), name, password)
  await assert.rejects(resolve(startClient(t), name), saying('unknown', /access denied: .*401 UNAUTHORIZED/))
  await assert.rejects(
    resolve(startClient(t), name, Credentials.from({ ...secret, password: 'falsch' })),
    saying('unknown', /access denied/),
  )

  registry.auth = { kind: 'bearer', ...auth }
  await resolve(startClient(t), name, password)
  await resolve(startClient(t), name, Credentials.from({ identityToken: 'refresh' }))
  await resolve(startClient(t), name, Credentials.from({ registryToken: 'direct' }))
  await assert.rejects(
    resolve(startClient(t), name),
    saying('unknown', /access denied: token server http:\/\/.*\/token: 401/),
  )
  registry.auth = { ...registry.auth, anonymous: true }
  await resolve(startClient(t), name)
  const tokens = registry.requestsTo(/token/)
  assert.ok(
    tokens.every(
      ({ query, body }) =>
        (query.get('scope') ?? new URLSearchParams(body).get('scope')) === 'repository:app:pull',
    ),
  )
  assert.ok(tokens.every(({ method, headers }) => method === 'GET' || headers.authorization === undefined))
})

test('a token is fetched once per repository and credential, and again when it is refused', async t => {
  const registry = await startServer(t, {
    auth: { kind: 'bearer', username: 'anna', password: 'geheim', anonymous: true },
  })
  const pushed = await smallImage()
  for (const repository of ['a', 'b']) registry.push(pushed, repository, 'v1')
  const berth = startClient(t)
  const tokens = () => registry.requestsTo(/token/).length
  await checkLayer(berth, `${registry.address}/a:v1`, pushed)
  await resolve(berth, `${registry.address}/a:v1`)
  assert.equal(tokens(), 1)
  await resolve(berth, `${registry.address}/b:v1`)
  assert.equal(tokens(), 2)
  await resolve(berth, `${registry.address}/a:v1`, Credentials.from({ username: 'anna', password: 'geheim' }))
  assert.equal(tokens(), 3)
  registry.revokeTokens()
  registry.faults({ match: /token/, delayMs: 20 })
  await Promise.all([1, 2, 3].map(() => resolve(berth, `${registry.address}/a:v1`)))
  assert.equal(tokens(), 4)
  registry.auth = { kind: 'bearer', anonymous: true, expiresIn: 5 }
  await resolve(startClient(t), `${registry.address}/a:v1`)
  registry.faults({ match: /v2/, status: 401, headers: { 'WWW-Authenticate': 'Bearer realm="' } })
  await assert.rejects(resolve(startClient(t), `${registry.address}/a:v1`), saying('unknown', /401/))
})

test('a credential goes to the host it names, without a name to the registry and not to its mirrors', async t => {
  const auth = { kind: 'basic', username: 'anna', password: 'geheim' } as const
  const [mirror, own] = await Promise.all([startServer(t, { auth }), startServer(t, { auth })])
  const pushed = await smallImage()
  for (const registry of [mirror, own]) registry.push(pushed, 'app', 'v1')
  const conf = mirrors(mirror.address, own.address)
  const asked = async (serverAddress: string) => {
    mirror.requests.length = 0
    own.requests.length = 0
    await resolve(
      startClient(t, conf),
      'registry.test/app:v1',
      Credentials.from({ ...auth, serverAddress }),
    ).catch(() => undefined)
    const has = (registry: TestRegistry) =>
      registry.requests.some(request => request.headers.authorization !== undefined)
    return [has(mirror), has(own)]
  }
  assert.deepEqual(await asked(''), [false, true])
  assert.deepEqual(await asked(mirror.address), [true, false])
  assert.deepEqual(await asked(`http://${own.address}/v1/`), [false, true])
  assert.deepEqual(await asked('127.0.0.1'), [false, false])

  const directory = temporaryDirectory(t)
  const file = join(directory, 'auth.json')
  const entry = { auth: Buffer.from('anna:geheim').toString('base64') }
  writeFileSync(file, JSON.stringify({ auths: { [`${mirror.address}/app`]: entry } }))
  assert.equal(
    (await resolve(startClient(t, conf, { authFiles: [file] }), 'registry.test/app:v1')).digest,
    pushed.digest,
  )
})

test('redirects lose the authorization with the origin, and signed queries stay out of messages', async t => {
  const auth = { kind: 'basic', username: 'anna', password: 'geheim' } as const
  const [registry, storage] = await Promise.all([startServer(t, { auth }), startServer(t)])
  const pushed = await smallImage()
  registry.push(pushed, 'app', 'v1')
  storage.push(pushed, 'app', 'v1')
  const berth = startClient(t, '', { authFiles: [] })
  const repository = berth.repository(parseReference(`${registry.address}/app:v1`), Credentials.from(auth))
  const { layers } = await repository.resolve(signal)
  const read = async () => Buffer.concat(await repository.openBlob(layers[0]!, signal).toArray())

  registry.faults({ match: /blobs/, redirectTo: path => `${storage.url}${path}?X-Signature=geheim` })
  storage.faults({ match: /blobs/, cutAt: 100_000, times: 1 })
  assert.equal((await read()).length, layers[0]!.size)
  const moved = [...storage.requests]
  assert.deepEqual(
    moved.map(request => [request.headers.authorization, request.headers.range]),
    [
      [undefined, undefined],
      [undefined, 'bytes=100000-'],
    ],
  )

  storage.faults({ match: /blobs/, status: 401, headers: { 'WWW-Authenticate': 'Basic realm="x"' } })
  storage.requests.length = 0
  await assert.rejects(read(), saying('unknown', /access denied/))
  assert.ok(
    storage.requests.every(request => request.headers.authorization === undefined),
    'a stranger’s challenge is not answered',
  )

  registry.faults({ match: /blobs/, times: 1, redirectTo: path => `${registry.url}${path}?again` })
  assert.equal((await read()).length, layers[0]!.size)
  registry.faults({ match: /blobs/, redirectTo: path => path })
  await assert.rejects(read(), saying('unknown', /more than 10 redirects/))
  registry.faults({ match: /blobs/, redirectTo: 'file:///etc/passwd' })
  await assert.rejects(read(), saying('unknown', /redirected to file:/))
  registry.faults({ match: /blobs/, redirectTo: 'http://[nonsense' })
  await assert.rejects(read(), saying('unknown', /redirected to nowhere/))
})

test('the token server’s address comes from the registry, so it is not trusted', async t => {
  const registry = await startServer(t, {
    auth: { kind: 'bearer', identityToken: 'refresh', realm: 'ftp://anna:geheim@tokens.test/' },
  })
  registry.push(await smallImage(), 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const identity = Credentials.from({ identityToken: 'refresh' })
  await assert.rejects(
    resolve(startClient(t), name, identity),
    saying('unknown', /names ftp:\/\/tokens.test\/ as its token server; expected an https URL/),
  )
  registry.auth = { kind: 'bearer', identityToken: 'refresh' }
  registry.faults({ match: /POST \/token/, redirectTo: 'http://127.0.0.1:1/' })
  await assert.rejects(resolve(startClient(t), name, identity), saying('unknown', /a secret is not sent on/))
  for (const body of [
    'geheim',
    '{}',
    '{"token":"a\\r\\nX: y"}',
    '{"token":1}',
    `{"token":"${'x'.repeat(300_000)}"}`,
  ]) {
    registry.faults({ match: /token/, status: 200, body })
    await assert.rejects(
      resolve(startClient(t), name, identity),
      saying('unknown', /token server|\/token: larger/),
    )
  }
})
