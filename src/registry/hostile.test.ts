/** What a hostile registry, mirror or token server may try: a test for each row of the list of what went wrong elsewhere. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeCertificate } from '../../test/support/certificate.ts'
import { type TestImage, withManifest } from '../../test/support/images.ts'
import { blobOf } from '../../test/support/layers.ts'
import type { TestRegistry } from '../../test/support/registry.ts'
import {
  checkLayer,
  mirrors,
  resolve,
  saying,
  signal,
  smallImage,
  startClient,
  startProxy,
  startServer,
  temporaryDirectory,
} from '../../test/support/registry-client.ts'
import { Credentials } from './credentials.ts'
import { parseReference } from './reference.ts'

const SECRET = { username: 'anna', password: 'geheim' }
const credentials = () => Credentials.from(SECRET)

type Fixture = { readonly registry: TestRegistry; readonly image: TestImage; readonly name: string }

async function start(t: TestContext, options: Parameters<typeof startServer>[1] = {}): Promise<Fixture> {
  const registry = await startServer(t, options)
  const image = await smallImage()
  registry.push(image, 'app', 'v1')
  return { registry, image, name: `${registry.address}/app:v1` }
}

/** A server of the test's own; closed with it. */
async function serve(
  t: TestContext,
  answer: (path: string, response: ServerResponse) => void,
): Promise<{ readonly address: string }> {
  const server = createServer((request, response) => answer(request.url ?? '', response))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}` }
}

/** A directory of certificates in which these hosts have this authority. */
function certificates(t: TestContext, authority: string, ...hosts: readonly string[]): string {
  const directory = temporaryDirectory(t)
  for (const host of hosts) {
    mkdirSync(join(directory, host))
    writeFileSync(join(directory, host, 'ca.crt'), authority)
  }
  return directory
}

/** Requests with a secret in them. */
function withSecrets(registry: TestRegistry): string[] {
  return registry.requests
    .filter(({ headers, body }) => headers.authorization !== undefined || body.includes('refresh_token'))
    .map(({ method, path }) => `${method} ${path}`)
}

/** What such a manifest is answered with; nothing else is asked for. */
async function refused(
  t: TestContext,
  document: (manifest: never) => unknown,
  message: RegExp,
  mediaType?: string,
) {
  const { registry, image } = await start(t)
  registry.push(
    withManifest(image, document(JSON.parse(`${image.manifest}`) as never), mediaType),
    'bad',
    'v1',
  )
  await assert.rejects(resolve(startClient(t), `${registry.address}/bad:v1`), saying('unknown', message))
  assert.deepEqual(
    registry.requests.map(({ path }) => path),
    ['/v2/bad/manifests/v1'],
  )
}

test('CVE-2021-41190: a document that is a manifest to one reader and an index to another', async t => {
  await refused(t, (manifest: object) => ({ ...manifest, manifests: [] }), /must not have "manifests"/)
  const index = 'application/vnd.oci.image.index.v1+json'
  await refused(t, (manifest: object) => ({ ...manifest, mediaType: index, manifests: [] }), /says it is/)
  await refused(
    t,
    (manifest: object) => manifest,
    /says it is ".*manifest.*" but was served as ".*index/,
    index,
  )
  const twice = (manifest: object) => Buffer.from(JSON.stringify(manifest).replace('{', '{"layers":[],'))
  await refused(t, twice, /member "layers" occurs twice/)
})

test('CVE-2020-1702, CVE-2023-25153: a manifest, token or error that does not end is left while it is read', async t => {
  let sent = 0
  const server = await serve(t, (path, response) => {
    const status = path.startsWith('/v2/denied/') ? 403 : path.startsWith('/v2/bearer/') ? 401 : 200
    response.writeHead(status, {
      'content-type': 'application/vnd.oci.image.manifest.v1+json',
      'www-authenticate': `Bearer realm="http://${server.address}/token"`,
    })
    const chunk = Buffer.alloc(65_536, ' ')
    const more = () => {
      if (response.destroyed) return
      sent += chunk.length
      response.write(chunk, () => setImmediate(more))
    }
    more()
  })
  const berth = startClient(t)
  for (const [path, message] of [
    ['endless', /larger than 4194304 bytes/],
    ['denied', /403/],
    ['bearer', /token: larger than 262144 bytes/],
  ] as const) {
    await assert.rejects(resolve(berth, `${server.address}/${path}:v1`), saying('unknown', message))
  }
  // What the sockets on the way hold is on top of the limits.
  assert.ok(sent < 40 * 1024 * 1024, `${sent} bytes were taken`)
})

test('CVE-2024-3727: a digest that is a path, or of another algorithm', async t => {
  const digests = ['sha256:../../../etc/passwd', `sha256:${'AB'.repeat(32)}`, `md5:${'ab'.repeat(16)}`, '', 7]
  for (const digest of digests) {
    await refused(
      t,
      (manifest: { config: object }) => ({ ...manifest, config: { ...manifest.config, digest } }),
      /config\.digest: expected "sha256:" and 64 lower-case hex digits/,
    )
  }
})

test('blob substitution: manifests come from the manifests endpoint only; size and digest hold for each blob', async t => {
  const { registry, image, name } = await start(t)
  const { config } = JSON.parse(`${image.manifest}`)
  // A blob that would be a manifest.
  registry.addBlob('app', blobOf(image.manifest))
  const digest = blobOf(Buffer.from('nothing')).digest
  await assert.rejects(
    resolve(startClient(t), `${registry.address}/app@${digest}`),
    saying('not-found', /404/),
  )
  const repository = startClient(t).repository(parseReference(name), undefined)
  await repository.resolve(signal)
  const read = (descriptor: object) => repository.readBlob({ ...config, ...descriptor }, 1 << 20, signal)
  await read({})
  await assert.rejects(read({ size: config.size + 1 }), saying('unknown', /bytes/))
  await assert.rejects(read({ size: config.size - 1 }), saying('unknown', /bytes/))
  registry.faults({ match: /blobs/, corrupt: true })
  await assert.rejects(read({}), saying('unknown', /the content received has digest/))
  registry.faults({ match: /manifests/, corrupt: true })
  await assert.rejects(
    resolve(startClient(t), `${registry.address}/app@${image.digest}`),
    saying('unknown', /digest/),
  )
})

test('CVE-2020-15157: the host of a foreign layer gets no credentials, whatever it asks', async t => {
  const authority = makeCertificate('authority')
  const certificate = makeCertificate('server', ['registry.test', 'foreign.test'], authority)
  const auth = { kind: 'basic', ...SECRET } as const
  const [registry, foreign] = await Promise.all([
    startServer(t, { tls: certificate, auth }),
    startServer(t, { tls: certificate, auth }),
  ])
  const proxy = await startProxy(t, { 'registry.test': registry.address, 'foreign.test': foreign.address })
  const image = await smallImage()
  const document = JSON.parse(`${image.manifest}`)
  document.layers[0].mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar'
  document.layers[0].urls = ['https://foreign.test/layer']
  registry.push(withManifest(image, document), 'app', 'v1')
  registry.removeBlob('app', image.layers[0]!.blob.digest)
  const berth = startClient(t, '', {
    proxy: { http: '', https: `http://${proxy.address}`, noProxy: '' },
    certDirs: [certificates(t, authority.cert, 'registry.test', 'foreign.test')],
  })
  const repository = berth.repository(parseReference('registry.test/app:v1'), credentials())
  const { layers } = await repository.resolve(signal)
  await assert.rejects(
    (await repository.openBlob(layers[0]!, signal)).toArray(),
    saying('unknown', /access denied: .*foreign\.test\/layer: 401/),
  )
  assert.deepEqual(
    foreign.requests.map(({ headers }) => headers.authorization),
    [undefined],
  )
})

test('CVE-2024-30260, CVE-2023-45143: no authorization over a redirect to another host, port or scheme', async t => {
  const auth = { kind: 'basic', ...SECRET } as const
  const { registry, image, name } = await start(t, { auth })
  const elsewhere = await startServer(t)
  elsewhere.push(image, 'app', 'v1')
  const port = elsewhere.address.split(':')[1]
  const berth = startClient(t)
  await resolve(berth, name, credentials())
  for (const host of ['127.0.0.1', 'localhost']) {
    registry.faults({ match: /manifests/, redirectTo: path => `http://${host}:${port}${path}` })
    await resolve(berth, name, credentials())
  }
  assert.equal(registry.requests.at(-1)?.headers.authorization, credentials()?.basic)
  assert.equal(elsewhere.requests.length, 2)
  assert.deepEqual(withSecrets(elsewhere), [])
  registry.faults({ match: /manifests/, redirectTo: path => `https://127.0.0.1:${port}${path}` })
  await assert.rejects(resolve(berth, name, credentials()), saying('unknown', /^RegistryUnavailable/))
  assert.deepEqual(withSecrets(elsewhere), [])
})

test('CVE-2019-10214: a token server over http gets nothing, unless the registry is configured insecure', async t => {
  const certificate = makeCertificate('server', ['registry.test'])
  const tokens = await startServer(t)
  const auth = { kind: 'bearer', ...SECRET, realm: `${tokens.url}/token` } as const
  const registry = await startServer(t, { tls: certificate, auth })
  const proxy = await startProxy(t, { 'registry.test': registry.address })
  const berth = startClient(t, '', {
    proxy: { http: '', https: `http://${proxy.address}`, noProxy: '' },
    certDirs: [certificates(t, certificate.cert, 'registry.test')],
  })
  const pull = resolve(berth, 'registry.test/app:v1', credentials())
  await assert.rejects(
    pull,
    saying('unknown', /names http:\/\/.*\/token as its token server; expected an https URL/),
  )
  assert.deepEqual(tokens.requests, [])
})

test('token scope: a token for one repository is not sent to another, nor another credential’s', async t => {
  const { registry, image, name } = await start(t, { auth: { kind: 'bearer', ...SECRET } })
  registry.push(image, 'other', 'v1')
  const berth = startClient(t)
  await resolve(berth, name, credentials())
  await resolve(berth, `${registry.address}/other:v1`, credentials())
  await assert.rejects(resolve(berth, name), saying('unknown', /access denied/))
  const sent = registry.requestsTo(/manifests/).map(({ path, headers }) => [path, headers.authorization])
  const [, app, , other, anonymous] = sent
  assert.notEqual(app?.[1], other?.[1])
  assert.deepEqual(anonymous, ['/v2/app/manifests/v1', undefined])
})

test('pulls: authorization is asked for twice at most, redirects are followed ten times at most', async t => {
  const { registry, name } = await start(t, { auth: { kind: 'bearer', ...SECRET } })
  registry.faults({
    match: /manifests/,
    status: 401,
    headers: { 'WWW-Authenticate': `Bearer realm="${registry.url}/token",service="test"` },
  })
  await assert.rejects(
    resolve(startClient(t), name, credentials()),
    saying('unknown', /access denied: .*401/),
  )
  assert.deepEqual([registry.requestsTo(/manifests/).length, registry.requestsTo(/token/).length], [2, 1])
  registry.auth = undefined
  registry.requests.length = 0
  registry.faults({ match: /manifests/, redirectTo: path => path })
  await assert.rejects(resolve(startClient(t), name), saying('unknown', /more than 10 redirects/))
  assert.equal(registry.requests.length, 11)
})

test('registry Retry-After: a day is not waited for', async t => {
  const { registry, name } = await start(t)
  registry.faults({ match: /manifests/, status: 429, retryAfter: '86400', times: 2 })
  await resolve(startClient(t, '', { retry: { tries: 3, baseMs: 1, maxMs: 5 } }), name)
  assert.equal(registry.requests.length, 3)
  const date = new Date(Date.now() + 86_400_000).toUTCString()
  registry.faults({ match: /manifests/, status: 503, retryAfter: date })
  const berth = startClient(t, '', { retry: { tries: 2, baseMs: 1, maxMs: 5 } })
  await assert.rejects(resolve(berth, name), saying('unknown', /^RegistryUnavailable: .*503.*\(2 tries\)/))
})

test('JSON anywhere: bytes, depth and duplicate keys', async t => {
  const nested = (depth: number) => Buffer.from(`{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`)
  await refused(t, () => nested(64), /nested deeper than 64 levels/)
  await refused(t, () => nested(1_000_000), /not valid JSON|nested deeper/)
  await refused(t, () => Buffer.from('{"schemaVersion":2,"\\u0073chemaVersion":2}'), /occurs twice/)
  await refused(t, () => Buffer.from([0x7b, 0xff, 0x7d]), /not valid UTF-8/)
  const { registry, name } = await start(t, { auth: { kind: 'bearer', ...SECRET } })
  registry.faults({ match: /token/, status: 200, body: '{"token":"a","token":"b"}' })
  await assert.rejects(resolve(startClient(t), name, credentials()), saying('unknown', /not valid JSON/))
})

test('redirects to link-local and metadata addresses, and to this node from elsewhere', async t => {
  const { registry, image, name } = await start(t)
  const hosts = [
    '169.254.169.254',
    '[fe80::1]',
    '[::ffff:169.254.169.254]',
    '0.0.0.0',
    '2852039166',
    '[fd00:ec2::254]',
  ]
  for (const host of hosts) {
    registry.faults({ match: /manifests/, redirectTo: `http://${host}/latest/meta-data/` })
    await assert.rejects(
      resolve(startClient(t), name),
      saying('unknown', /must not lead to a link-local/),
      host,
    )
  }
  registry.faults({ match: /blobs/, redirectTo: 'http://169.254.169.254/latest' })
  await assert.rejects(
    checkLayer(startClient(t), name, image),
    saying('unknown', /must not lead to a link-local/),
  )
  registry.faults()
  registry.auth = { kind: 'bearer', ...SECRET, realm: 'http://169.254.169.254/token' }
  await assert.rejects(
    resolve(startClient(t), name, credentials()),
    saying('unknown', /must not lead to a link/),
  )

  registry.auth = undefined
  const proxy = await startProxy(t, { 'registry.test': registry.address })
  const far = startClient(t, '[[registry]]\nlocation = "registry.test"\ninsecure = true', {
    proxy: { http: `http://${proxy.address}`, https: `http://${proxy.address}`, noProxy: 'localhost' },
  })
  for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
    registry.faults({ match: /manifests/, redirectTo: `http://${host}:10248/healthz` })
    await assert.rejects(
      resolve(far, 'registry.test/app:v1'),
      saying('unknown', /must not lead to this node/),
      host,
    )
  }
})

test('challenge headers and tokens that are too long are not taken', async t => {
  const { registry, name } = await start(t)
  const challenge = (text: string) =>
    registry.faults({ match: /./, status: 401, headers: { 'WWW-Authenticate': text } })
  challenge(`Bearer realm="${registry.url}/token",x="${'x'.repeat(9000)}"`)
  await assert.rejects(
    resolve(startClient(t), name, credentials()),
    saying('unknown', /access denied: .*401/),
  )
  challenge(`Bearer realm="${'x'.repeat(20_000)}"`)
  await assert.rejects(resolve(startClient(t), name, credentials()), saying('unknown', /overflow/i))
  assert.equal(registry.requestsTo(/token/).length, 0)
  registry.faults({ match: /token/, status: 200, body: `{"token":"${'x'.repeat(262_144)}"}` })
  registry.auth = { kind: 'bearer', ...SECRET }
  await assert.rejects(
    resolve(startClient(t), name, credentials()),
    saying('unknown', /token: larger than 262144/),
  )
})

test('a mirror that lies is left for the next, and never believed', async t => {
  const [mirror, registry] = await Promise.all([startServer(t), startServer(t)])
  const image = await smallImage()
  for (const server of [mirror, registry]) server.push(image, 'app', 'v1')
  const berth = startClient(t, mirrors(mirror.address, registry.address))
  mirror.faults({ match: /manifests/, corrupt: true })
  assert.equal((await resolve(berth, 'registry.test/app:v1')).digest, image.digest)
  mirror.faults({ match: /blobs/, corrupt: true })
  const repository = berth.repository(parseReference('registry.test/app:v1'), undefined)
  const { config } = await repository.resolve(signal)
  await assert.rejects(
    repository.readBlob(config, 1 << 20, signal),
    saying('unknown', /the content received has/),
  )
})
