import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeCertificate } from '../../test/support/certificate.ts'
import {
  checkLayer,
  resolve,
  saying,
  smallImage,
  startClient,
  startServer,
  temporaryDirectory,
} from '../../test/support/registry-client.ts'
import type { RegistryOptions } from './client.ts'
import { Credentials } from './credentials.ts'

/** A client for which `registry.test` has this hosts.toml, with further files beside it. */
function clientWith(
  t: TestContext,
  hosts: string,
  files: Readonly<Record<string, string>> = {},
  options: Partial<RegistryOptions> = {},
) {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'registry.test'))
  for (const [name, text] of Object.entries({ ...files, 'hosts.toml': hosts })) {
    writeFileSync(join(directory, 'registry.test', name), text)
  }
  return startClient(t, '', { certDirs: [directory], ...options })
}

const NAME = 'registry.test/team/app:v1'

test('a mirror that only pulls is not asked what a tag means, but gives the layers', async t => {
  const [mirror, registry] = await Promise.all([startServer(t), startServer(t)])
  const pushed = await smallImage()
  for (const server of [mirror, registry]) server.push(pushed, 'team/app', 'v1')
  const berth = clientWith(t, `server = "${registry.url}"\n[host."${mirror.url}"]\ncapabilities = ["pull"]`)
  await checkLayer(berth, NAME, pushed)
  const lines = (server: typeof mirror) =>
    server.requests.map(({ path, query }) => `${path.split('/').slice(-2, -1)} ns=${query.get('ns')}`)
  assert.deepEqual(lines(registry), ['manifests ns=registry.test'])
  assert.deepEqual(lines(mirror), ['blobs ns=registry.test'])

  mirror.removeBlob('team/app', pushed.layers[0]!.blob.digest)
  await checkLayer(berth, NAME, pushed)
  assert.deepEqual(lines(registry).at(-1), 'blobs ns=registry.test')
  const digest = `registry.test/team/app@${pushed.digest}`
  mirror.requests.length = 0
  await resolve(berth, digest)
  assert.deepEqual(lines(mirror), ['manifests ns=registry.test'])
  const nobody = clientWith(t, `server = "${registry.url}"\ncapabilities = ["push"]`)
  await assert.rejects(resolve(nobody, NAME), saying('unknown', /gives no host the capability "resolve"/))
})

test('a mirror below a path, with headers that stay with it', async t => {
  const [mirror, storage] = await Promise.all([startServer(t), startServer(t)])
  const pushed = await smallImage()
  mirror.push(pushed, 'proxy/team/app', 'v1')
  storage.push(pushed, 'proxy/team/app', 'v1')
  mirror.faults({ match: /blobs/, redirectTo: path => `${storage.url}${path}` })
  const berth = clientWith(
    t,
    `[host."${mirror.url}/v2/proxy"]\noverride_path = true\n[host."${mirror.url}/v2/proxy".header]\nX-Key = "geheim"`,
  )
  await checkLayer(berth, NAME, pushed)
  assert.deepEqual(
    mirror.requests.map(({ headers }) => headers['x-key']),
    ['geheim', 'geheim'],
  )
  assert.deepEqual(
    storage.requests.map(({ headers }) => headers['x-key']),
    [undefined],
  )
})

test('credentials without a host go to the server, not to the mirrors of hosts.toml', async t => {
  const auth = { kind: 'basic', username: 'anna', password: 'geheim' } as const
  const [mirror, registry] = await Promise.all([startServer(t, { auth }), startServer(t, { auth })])
  for (const server of [mirror, registry]) server.push(await smallImage(), 'team/app', 'v1')
  const berth = clientWith(t, `server = "${registry.url}"\n[host."${mirror.url}"]`)
  await resolve(berth, NAME, Credentials.from(auth))
  assert.ok(mirror.requests.every(({ headers }) => headers.authorization === undefined))
  assert.deepEqual(
    registry.requests.map(({ status }) => status),
    [401, 200],
  )
  await resolve(berth, NAME, Credentials.from({ ...auth, serverAddress: `http://${mirror.address}` }))
  assert.equal(mirror.requests.at(-1)?.status, 200)
})

test('authorities and client certificates of a host, from its own files', async t => {
  const authority = makeCertificate('authority')
  const server = makeCertificate('server', ['127.0.0.1'], authority)
  const client = makeCertificate('client', [], authority)
  const registry = await startServer(t, { tls: { ...server, clientCa: authority.cert } })
  const pushed = await smallImage()
  registry.push(pushed, 'team/app', 'v1')
  const files = {
    'ca.pem': authority.cert,
    'client.pem': client.cert,
    'client.key': client.key,
    'both.pem': `${client.cert}${client.key}`,
    'broken.pem': 'no certificate',
  }
  const pull = (settings: string) =>
    resolve(clientWith(t, `server = "${registry.url}"\n${settings}`, files), NAME)
  await pull('ca = "ca.pem"\nclient = [["client.pem", "client.key"]]')
  await pull('ca = ["ca.pem"]\nclient = "both.pem"')
  await pull('skip_verify = true\nclient = ["both.pem"]')
  await assert.rejects(pull('ca = "ca.pem"'), saying('unknown', /certificate required|closed|reset/i))
  await assert.rejects(pull('client = "both.pem"'), saying('unknown', /cannot be trusted/))
  await assert.rejects(pull('ca = "none.pem"'), saying('unknown', /registry\.test\/none\.pem: no such file/))
  await assert.rejects(pull('client = "ca.pem"'), saying('unknown', /ca\.pem.*: not usable as certificates/))
})

test('an auth file of a namespace is for one pull', async t => {
  const auth = { kind: 'basic', username: 'anna', password: 'geheim' } as const
  const registry = await startServer(t, { auth })
  registry.push(await smallImage(), 'team/app', 'v1')
  const directory = temporaryDirectory(t)
  const berth = startClient(t, '', { namespacedAuthDir: directory })
  const name = `${registry.address}/team/app`
  const file = join(directory, `web-${createHash('sha256').update(name).digest('hex')}.json`)
  const entry = { username: 'anna', password: 'geheim' }
  const write = () => writeFileSync(file, JSON.stringify({ auths: { [registry.address]: entry } }))
  const pull = (namespace: string) => {
    const [reference] = berth.candidates(`${name}:v1`)
    return berth.repository(reference!, undefined, namespace).resolve(AbortSignal.timeout(10_000))
  }
  write()
  await assert.rejects(pull('other'), saying('unknown', /access denied/))
  await assert.rejects(pull('../web'), saying('unknown', /access denied/))
  await pull('web')
  await assert.rejects(pull('web'), saying('unknown', /access denied/))
})
