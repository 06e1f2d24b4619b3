import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeCertificate } from '../../test/support/certificate.ts'
import {
  resolve,
  saying,
  smallImage,
  startClient,
  startProxy,
  startServer,
  temporaryDirectory,
} from '../../test/support/registry-client.ts'
import { Credentials } from './credentials.ts'

const authority = makeCertificate('test authority')
const NAME = 'secure.test/app:v1'

// Names below .test lead here through a proxy: loopback addresses would be exempt from verification.
async function secureServer(t: TestContext, options: { clientCa?: string; hosts?: readonly string[] } = {}) {
  const { cert, key } = makeCertificate('registry', options.hosts ?? ['secure.test'], authority)
  const tls = options.clientCa === undefined ? { cert, key } : { cert, key, clientCa: options.clientCa }
  const registry = await startServer(t, { tls })
  registry.push(await smallImage(), 'app', 'v1')
  const plain = await startServer(t)
  const proxy = await startProxy(t, {
    'secure.test': registry.address,
    'tokens.test': registry.address,
    'plain.test': plain.address,
  })
  const certDir = temporaryDirectory(t)
  const files = (contents: Record<string, string>) => {
    for (const [name, text] of Object.entries(contents)) {
      mkdirSync(dirname(join(certDir, name)), { recursive: true })
      writeFileSync(join(certDir, name), text)
    }
  }
  const via = { http: proxy.address, https: proxy.address, noProxy: '' }
  const client = (
    more: { insecureRegistries?: string[]; retry?: { tries: number; baseMs: number; maxMs: number } } = {},
  ) => startClient(t, '', { certDirs: [certDir], proxy: via, ...more })
  return { registry, plain, proxy, certDir, files, client }
}

test('a certificate must be trusted: by an authority for the host, or by "insecure"', async t => {
  const { registry, certDir, files, client } = await secureServer(t)
  const berth = client()
  await assert.rejects(
    resolve(berth, NAME),
    saying(
      'unknown',
      /^secure\.test\/app:v1: https:\/\/secure\.test\/v2\/app\/manifests\/v1: the certificate cannot be trusted: /,
    ),
  )
  files({ 'secure.test/ca.crt': authority.cert })
  await resolve(berth, NAME)
  rmSync(join(certDir, 'secure.test'), { recursive: true })
  files({ 'secure.test:443/ca.crt': authority.cert })
  await resolve(berth, NAME)
  rmSync(join(certDir, 'secure.test:443'), { recursive: true })
  await assert.rejects(resolve(berth, NAME), saying('unknown', /cannot be trusted/))
  await resolve(client({ insecureRegistries: ['secure.test'] }), NAME)
  assert.equal(registry.requests.length, 3)
})

test('a certificate for another host is refused', async t => {
  const { files, client } = await secureServer(t, { hosts: ['other.test'] })
  files({ 'secure.test/ca.crt': authority.cert })
  await assert.rejects(resolve(client(), NAME), saying('unknown', /cannot be trusted: .*altnames/))
})

test('client certificates, and what is wrong with their files', async t => {
  const { files, client, certDir } = await secureServer(t, { clientCa: authority.cert })
  const node = makeCertificate('node', [], authority)
  files({ 'secure.test/ca.crt': authority.cert })
  await assert.rejects(resolve(client(), NAME), saying('unknown', /secure\.test/))
  files({ 'secure.test/client.cert': node.cert })
  await assert.rejects(
    resolve(client(), NAME),
    saying('unknown', /client\.cert: a client certificate needs a \.cert and a \.key file/),
  )
  files({ 'secure.test/client.key': node.key })
  await resolve(client(), NAME)
  rmSync(join(certDir, 'secure.test/client.cert'))
  await assert.rejects(resolve(client(), NAME), saying('unknown', /client\.key: a client certificate needs/))
  files({ 'secure.test/client.cert': 'nonsense' })
  await assert.rejects(
    resolve(client(), NAME),
    saying('unknown', /client\.cert.*: not usable as certificates/),
  )
})

test('plain http only where it is configured', async t => {
  const { plain, proxy, client } = await secureServer(t)
  plain.push(await smallImage(), 'app', 'v1')
  await assert.rejects(resolve(client(), 'plain.test/app:v1'), saying('unknown', /^RegistryUnavailable: /))
  assert.ok(proxy.requests.every(line => line.startsWith('CONNECT')))
  assert.equal(plain.requests.length, 0)
  const berth = client({ insecureRegistries: ['plain.test'] })
  await resolve(berth, 'plain.test/app:v1')
  proxy.requests.length = 0
  await resolve(berth, 'plain.test/app:v1')
  assert.deepEqual(proxy.requests, ['GET http://plain.test/v2/app/manifests/v1'], 'what works is remembered')
})

test('never from https to http', async t => {
  const { registry, plain, files, client } = await secureServer(t)
  files({ 'secure.test/ca.crt': authority.cert })
  for (const berth of [client(), client({ insecureRegistries: ['secure.test'] })]) {
    registry.faults({ match: /manifests/, redirectTo: path => `http://plain.test${path}` })
    await assert.rejects(resolve(berth, NAME), saying('unknown', /redirected from https to http/))
  }
  registry.faults()
  registry.auth = { kind: 'bearer', username: 'anna', password: 'geheim', realm: 'http://plain.test/token' }
  const credentials = Credentials.from({ username: 'anna', password: 'geheim' })
  await assert.rejects(
    resolve(client(), NAME, credentials),
    saying('unknown', /names http:\/\/plain\.test\/token as its token server; expected an https URL/),
  )
  assert.equal(plain.requests.length, 0)
})

test('the permission to skip verification does not reach the token server’s host', async t => {
  const { registry, files, client } = await secureServer(t, { hosts: ['secure.test', 'tokens.test'] })
  registry.auth = { kind: 'bearer', username: 'anna', password: 'geheim', realm: 'https://tokens.test/token' }
  const credentials = Credentials.from({ username: 'anna', password: 'geheim' })
  const berth = client({ insecureRegistries: ['secure.test'] })
  await assert.rejects(
    resolve(berth, NAME, credentials),
    saying('unknown', /https:\/\/tokens\.test\/token: the certificate cannot be trusted/),
  )
  assert.equal(registry.requestsTo(/token/).length, 0)
  files({ 'tokens.test/ca.crt': authority.cert })
  await resolve(berth, NAME, credentials)
  assert.equal(registry.requestsTo(/token/).length, 1)
})
