import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import { busyboxImage } from '../support/images.ts'
import { FOREVER } from '../support/kubelet.ts'
import { linesWithSecrets, secret } from '../support/secrets.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'
import { WebSocketClient } from '../support/websocket-client.ts'

const kubelet = useDaemon({
  label: 'secrets',
  config: directory =>
    `[crio.runtime]\nlog_level = "trace"\n[crio.image]\nglobal_auth_file = "${directory}/auth.json"\n`,
  env: { HTTPS_PROXY: `http://anna:${secret('proxy')}@127.0.0.1:9` },
})

const PRIVATE = 'private.test/app:1'

/** Credentials go to no mirror: this registry is asked itself. */
async function pushPrivate() {
  const { registry } = kubelet().daemon
  registry.push(await busyboxImage({ labels: { is: 'private' } }), 'app', '1')
  const hosts = join(kubelet().daemon.directory, 'certs.d/private.test')
  mkdirSync(hosts, { recursive: true })
  writeFileSync(join(hosts, 'hosts.toml'), `server = "http://${registry.address}"\n`)
}

/** What a client is told; '' when the call succeeds. */
async function told(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return ''
  } catch (error) {
    return String((error as Error).stack)
  }
}

function pullWith(auth: Readonly<Record<string, string>>): Promise<unknown> {
  return kubelet().daemon.client.image('PullImage', { image: { image: PRIVATE }, auth })
}

/** Regular files of the daemon in which a secret stands; a layer's are its own, and namespaces have no text. */
function filesWithSecrets(isSecret = (text: string) => linesWithSecrets(text).length > 0): string[] {
  const { directory, root, runRoot } = kubelet().daemon
  return [root, runRoot].flatMap(top =>
    readdirSync(top, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile() && !/\/(layers|rootfs|ns)(\/|$)/.test(entry.parentPath))
      .map(entry => join(entry.parentPath, entry.name))
      .filter(path => isSecret(readFileSync(path, 'latin1')))
      .map(path => relative(top === root ? directory : runRoot, path)),
  )
}

/** Nothing that an operator, a client or the next program sees has a secret in it. */
async function nothingShown(known: readonly string[] = []): Promise<void> {
  const { daemon } = kubelet()
  const outputs = await Promise.all([
    daemon.berth('status'),
    daemon.berth('status', '--json'),
    daemon.berth('timeline'),
    daemon.berth('image', 'list'),
    daemon.crictl('info'),
  ])
  for (const { stdout, stderr } of outputs) {
    assert.deepEqual(linesWithSecrets(`${stdout}\n${stderr}`, known), [])
  }
  assert.deepEqual(linesWithSecrets(daemon.log, known), [])
}

test('passwords and tokens of registries, given in every way, are logged, shown and stored nowhere', async () => {
  const { daemon } = kubelet()
  await pushPrivate()
  const refused: string[] = []
  const basic = { username: 'anna', password: secret('registry-password') }
  daemon.registry.auth = { kind: 'basic', ...basic }
  refused.push(await told(pullWith({ ...basic, password: secret('wrong-password') })))
  assert.equal(await told(pullWith(basic)), '')
  assert.equal(await told(pullWith({ auth: Buffer.from(`anna:${basic.password}`).toString('base64') })), '')

  const identityToken = secret('identity-token')
  daemon.registry.auth = { kind: 'bearer', ...basic, identityToken, registryToken: secret('registry-token') }
  refused.push(await told(pullWith({ identity_token: secret('wrong-identity') })))
  refused.push(await told(pullWith({ registry_token: secret('wrong-token') })))
  assert.equal(await told(pullWith({ identity_token: identityToken })), '')
  assert.equal(await told(pullWith({ registry_token: secret('registry-token') })), '')

  const auths = JSON.stringify({ auths: { 'private.test': basic, [daemon.registry.address]: basic } })
  writeFileSync(join(daemon.directory, 'auth.json'), auths)
  await kubelet().pull(PRIVATE)
  writeFileSync(
    join(daemon.directory, 'auth.json'),
    `${auths.slice(0, -1)}, "auths": ${secret('broken-file')}}`,
  )
  refused.push(await told(kubelet().pull(PRIVATE)))
  writeFileSync(join(daemon.directory, 'auth.json'), '{}')
  assert.deepEqual(
    refused.map(error => error !== ''),
    [true, true, true, true],
  )
  assert.deepEqual(linesWithSecrets(refused.join('\n')), [])
  await nothingShown()
  assert.deepEqual(filesWithSecrets(), [])
})

test('the password of a proxy is in no error and no log line', async () => {
  const error = await told(kubelet().pull('registry.invalid/app:1'))
  assert.match(error, /127\.0\.0\.1:9/)
  assert.deepEqual(linesWithSecrets(error), [])
  await nothingShown()
})

test('what a registry redirects to, with its signature, is in no error and no log line', async () => {
  const { daemon } = kubelet()
  await pushPrivate()
  daemon.registry.auth = undefined
  daemon.registry.push(await busyboxImage({ files: { '/etc/motd': 'not here yet' } }), 'app', '2')
  daemon.registry.faults({
    match: /GET .*\/app\/blobs\//,
    redirectTo: `http://127.0.0.1:9/blob?X-Signature=${secret('signature')}`,
  })
  const error = await told(kubelet().pull('private.test/app:2'))
  daemon.registry.faults()
  assert.notEqual(error, '')
  assert.deepEqual(linesWithSecrets(error), [])
  await nothingShown()
})

test('the environment and the commands of containers are logged nowhere, and lie only in files of root', async () => {
  const { daemon } = kubelet()
  const pod = await kubelet().runPod()
  const envs = [{ key: 'TOKEN', value: secret('environment') }]
  const id = await kubelet().run(pod, FOREVER, { envs, args: ['sh', secret('argument')] })
  assert.equal((await kubelet().exec(id, 'echo $TOKEN')).stdout, `${secret('environment')}\n`)
  assert.equal((await kubelet().exec(id, `test ${secret('command')} = x`)).code, 1)
  const failed = await told(
    kubelet().run(pod, '', { envs, command: ['/no/such/program'], args: [secret('argument')] }),
  )
  assert.match(failed, /no such file/)
  assert.deepEqual(linesWithSecrets(failed), [])
  await nothingShown()
  // The database and the bundles: what a container was asked to be, and is.
  for (const path of filesWithSecrets())
    assert.match(path, /^(state\/berth\.db(-wal)?|(containers|s)\/[0-9a-f]{64}\/config\.json)$/)
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    const command = commandOf(pid)
    if (!/conmon|runc|berth\.mjs|src\/main\.ts/.test(command)) continue
    assert.deepEqual(linesWithSecrets(command), [], `process ${pid}`)
  }
  await daemon.restart()
  await nothingShown()
})

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // ended meanwhile
  }
}

test('children see nothing of the daemon’s environment', async () => {
  const { daemon } = kubelet()
  const seen = join(daemon.directory, 'seen')
  mkdirSync(seen)
  chmodSync(seen, 0o700)
  const plugin = daemon.networkPlugin('tell', `tr '\\0' '\\n' </proc/$$/environ >${seen}/plugin`)
  daemon.configureNetwork({ plugins: [plugin] })
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, 'cat /proc/1/environ; sleep 100000')
  await until('the plugin has told', () => readdirSync(seen).length > 0)
  const monitor = readdirSync('/proc').find(pid => /^\d+$/.test(pid) && isMonitorOf(pid, id))
  assert.ok(monitor)
  const environments = [
    readFileSync(join(seen, 'plugin'), 'utf8'),
    readFileSync(`/proc/${monitor}/environ`, 'utf8'),
    (await kubelet().logOf(id)).map(line => line.text).join('\n'),
  ]
  for (const environment of environments) {
    assert.ok(environment.includes('PATH='))
    assert.doesNotMatch(environment, /PROXY|BERTH/)
    assert.deepEqual(linesWithSecrets(environment), [])
  }
})

function isMonitorOf(pid: string, id: string): boolean {
  const command = commandOf(pid)
  return command.startsWith('/usr/bin/conmon') && command.includes(id)
}

test('tokens of streams are logged nowhere, whether they are used, wrong, or late', async () => {
  const { client } = kubelet().daemon
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER)
  const exec = { container_id: id, cmd: ['echo', 'hello'], stdout: true }
  const urls = await Promise.all([1, 2].map(async () => (await client.runtime('Exec', exec)).url))
  const tokens = urls.map(url => new URL(url).pathname.split('/').at(-1)!)
  assert.ok(tokens.every(token => token.length > 10))
  const session = await WebSocketClient.connect(urls[0]!, ['v5.channel.k8s.io'])
  await until('the command ends', () => session.closed)
  await assert.rejects(WebSocketClient.connect(urls[0]!, ['v5.channel.k8s.io']), 'used already')
  await assert.rejects(WebSocketClient.connect(urls[1]!.replace('/exec/', '/attach/'), ['v5.channel.k8s.io']))
  await nothingShown(tokens)
  assert.deepEqual(
    filesWithSecrets(text => tokens.some(token => text.includes(token))),
    [],
  )
})

test('the trace of effects names no secret', async () => {
  const { daemon } = kubelet()
  const trace = join(daemon.directory, 'trace')
  await daemon.restart({ BERTH_FAULTS: `trace=${trace}` })
  await pushPrivate()
  const password = secret('registry-password')
  daemon.registry.auth = { kind: 'bearer', username: 'anna', password }
  await pullWith({ username: 'anna', password })
  daemon.registry.auth = undefined
  const pod = await kubelet().runPod()
  const id = await kubelet().run(pod, FOREVER, { envs: [{ key: 'TOKEN', value: secret('environment') }] })
  await kubelet().exec(id, `true ${secret('command')}`)
  const text = readFileSync(trace, 'utf8')
  assert.ok(text.split('\n').length > 50, 'it traced')
  assert.deepEqual(linesWithSecrets(text), [])
  await daemon.restart()
})
