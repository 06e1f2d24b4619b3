/** Registries and signers that are not ours, and what kubelet sees of them. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { attach, makeKey, signature } from '../support/cosign.ts'
import { DockerRegistry, PEER_USER } from '../support/docker-registry.ts'
import { busyboxImage } from '../support/images.ts'
import { secret } from '../support/secrets.ts'
import { useDaemon } from '../support/use-daemon.ts'

const kubelet = useDaemon({
  config: directory => `[crio.image]\nglobal_auth_file = "${directory}/auth.json"\n`,
})

let peer: DockerRegistry | undefined
let id = ''
let manifest = ''

// A test and no hook: hooks of a file begin together, and this one needs the daemon's network.
test('an image is copied into Debian’s registry', async () => {
  peer = await DockerRegistry.start()
  const { registry } = kubelet().daemon
  const image = await busyboxImage({ labels: { from: 'peer' } })
  id = image.id
  manifest = image.digest
  registry.push(image, 'app', 'v1')
  await peer.copy(`${registry.address}/app:v1`, 'team/app:v1')
  hosts('')
})

after(() => peer?.[Symbol.asyncDispose]())

/** A file of the daemon's. */
function write(name: string, text: string): string {
  const path = join(kubelet().daemon.directory, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

/** peer.test is Debian's registry; what is given stands before it in its hosts.toml. */
function hosts(before: string): void {
  assert.ok(peer)
  write('certs.d/peer.test/ca.pem', peer.authority)
  write('certs.d/peer.test/hosts.toml', `server = "${peer.url}"\nca = "ca.pem"\n${before}`)
}

async function pull(
  image: string,
  options: { readonly auth?: object; readonly namespace?: string } = {},
): Promise<string> {
  const { namespace, auth } = options
  const metadata = { name: 'pod', uid: 'uid', namespace: namespace ?? '', attempt: 0 }
  const pod = namespace === undefined ? {} : { sandbox_config: { metadata } }
  const reply = await kubelet().daemon.client.image('PullImage', {
    image: { image },
    ...(auth === undefined ? {} : { auth }),
    ...pod,
  })
  return reply.image_ref
}

test('Debian’s registry with TLS and htpasswd: credentials of the request and of the node', async () => {
  await assert.rejects(pull('peer.test/team/app:v1'), {
    code: 'unknown',
    message:
      /peer\.test\/team\/app:v1: access denied: https:\/\/127\.0\.0\.1:5443\/v2\/team\/app\/manifests\/v1: 401/,
  })
  await assert.rejects(
    pull('peer.test/team/app:v1', { auth: { ...PEER_USER, password: secret('wrong') } }),
    /access denied/,
  )
  assert.equal(await pull('peer.test/team/app:v1', { auth: PEER_USER }), id)
  await kubelet().daemon.client.image('RemoveImage', { image: { image: id } })
  const auths = (key: string) => JSON.stringify({ auths: { [key]: PEER_USER } })
  write('auth.json', auths('127.0.0.1:5443/other'))
  await assert.rejects(pull('peer.test/team/app:v1'), /access denied/)
  write('auth.json', auths('127.0.0.1:5443/team'))
  assert.equal(await pull('peer.test/team/app:v1'), id)
  const { image } = await kubelet().daemon.client.image('ImageStatus', { image: { image: id } })
  assert.deepEqual(image?.repo_tags, ['peer.test/team/app:v1'])
  await assert.rejects(pull('peer.test/team/absent:v1'), { code: 'unknown', message: /: not found: / })
})

test('a certificate of an authority that is not known is refused', async () => {
  write('certs.d/peer.test/hosts.toml', `server = "${peer?.url}"\n`)
  await assert.rejects(pull('peer.test/team/app:v1'), /the certificate cannot be trusted/)
  hosts('')
  await pull('peer.test/team/app:v1')
})

test('hosts.toml is taken over while the daemon runs, and explain says what is asked', async () => {
  const { daemon } = kubelet()
  const dead = 'http://127.0.0.1:9'
  hosts(`[host."${dead}"]\n[host."http://${daemon.registry.address}/mirror"]\n`)
  daemon.registry.push(await busyboxImage({ labels: { from: 'mirror' } }), 'team/app', 'v1')
  daemon.registry.faults({ match: /GET \/mirror\/v2\//, status: 503 })
  assert.equal(await pull('peer.test/team/app:v1'), id)
  const [asked] = daemon.registry.requestsTo(/^GET \/mirror\/v2\/team\/app\/manifests\/v1$/)
  assert.equal(asked?.query.get('ns'), 'peer.test')
  assert.match(daemon.log, /a registry endpoint failed.*127\.0\.0\.1:9/)
  const flags = [
    `--certs-dir=${daemon.directory}/certs.d`,
    `--global-auth-file=${daemon.directory}/auth.json`,
  ]
  const { stdout, code } = await daemon.berth(
    'registry',
    'explain',
    '--json',
    ...flags,
    'peer.test/team/app:v1',
  )
  assert.equal(code, 0)
  const [{ endpoints }] = JSON.parse(stdout)
  assert.deepEqual(
    endpoints.map((endpoint: { urls: string[] }) => endpoint.urls[0]),
    [
      `${dead}/v2/team/app`,
      `http://${daemon.registry.address}/mirror/v2/team/app`,
      `${peer?.url}/v2/team/app`,
    ],
  )
  assert.match(endpoints[2].credentials[0], /auths\["127\.0\.0\.1:5443\/team"\] \(user and password\)$/)
  write('certs.d/peer.test/hosts.toml', 'sever = "x"')
  await assert.rejects(pull('peer.test/team/app:v1'), {
    code: 'unknown',
    message: /hosts\.toml:1: sever: unknown key; did you mean "server"\?/,
  })
  daemon.registry.faults()
  hosts('')
})

test('an image that is signed satisfies the policy, and others do not', async () => {
  const { daemon } = kubelet()
  const key = makeKey()
  const sigstore = { type: 'sigstoreSigned', keyPath: write('key.pub', key.publicPem) }
  const accept = { type: 'insecureAcceptAnything' }
  const transports = { docker: { 'peer.test/team': [sigstore] } }
  const lenient = readFileSync(join(daemon.directory, 'policy.json'), 'utf8')
  const policy = write('policy.json', JSON.stringify({ default: [accept], transports }))
  await assert.rejects(pull('peer.test/team/app:v1'), {
    code: 'unknown',
    message:
      `SignatureValidationFailed: peer.test/team/app:v1: ${policy}: transports.docker["peer.test/team"][0] ` +
      `(sigstoreSigned): there is no signature of ${manifest}`,
  })
  attach(daemon.registry, 'app', manifest, [signature(key, manifest, { identity: 'peer.test/team/app:v2' })])
  const tag = `${manifest.replace(':', '-')}.sig`
  await peer?.copy(`${daemon.registry.address}/app:v1`, 'team/app:v2')
  await peer?.copy(`${daemon.registry.address}/app:${tag}`, `team/app:${tag}`)
  assert.equal(await pull('peer.test/team/app:v2'), id)
  // The same manifest, so the same signatures; but they are for another tag.
  await assert.rejects(
    pull('peer.test/team/app:v1'),
    /SignatureValidationFailed: .*app:v2", which is not what match/,
  )
  const own = write('policies/strict.json', JSON.stringify({ default: [{ type: 'reject' }] }))
  await assert.rejects(pull('peer.test/team/app:v2', { namespace: 'strict' }), {
    message: `SignatureValidationFailed: peer.test/team/app:v2: ${own}: default[0] (reject): the policy refuses this image`,
  })
  assert.equal(await pull('peer.test/team/app:v2', { namespace: 'other' }), id)
  rmSync(own)
  assert.equal(await pull('peer.test/team/app:v2', { namespace: 'strict' }), id)
  write('policy.json', lenient)
})

test('an image that is here is held to the policy of the pod that wants it, without its registry', async () => {
  const { daemon } = kubelet()
  const key = makeKey()
  const sigstore = { type: 'sigstoreSigned', keyPath: write('key.pub', key.publicPem) }
  const own = write('policies/default.json', JSON.stringify({ default: [sigstore] }))
  const identity = 'peer.test/team/app:v3'
  const pod = await kubelet().runPod()
  const create = (name: string) =>
    kubelet().create(pod, 'true', { image: { image: id, user_specified_image: name } })
  await peer?.copy(`${daemon.registry.address}/app:v1`, 'team/app:v3')
  await pull(identity)
  await assert.rejects(create(identity), {
    message: new RegExp(
      `^SignatureValidationFailed: ${identity}: ${own}: default\\[0\\] \\(sigstoreSigned\\): `,
    ),
  })
  attach(daemon.registry, 'app', manifest, [signature(key, manifest, { identity })])
  const tag = `${manifest.replace(':', '-')}.sig`
  await peer?.copy(`${daemon.registry.address}/app:${tag}`, `team/app:${tag}`)
  // Asked for at the registry once, and known from then on.
  await create(identity)
  write('certs.d/peer.test/hosts.toml', 'server = "http://127.0.0.1:9"')
  await daemon.restart()
  await create(identity)
  hosts('')
  await assert.rejects(
    create('peer.test/team/app:v1'),
    /^BerthError: SignatureValidationFailed: .*app:v3", which is/,
  )
  rmSync(own)
  await create('peer.test/team/app:v1')
})
