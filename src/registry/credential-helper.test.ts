import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import {
  resolve,
  saying,
  smallImage,
  startClient,
  startServer,
  temporaryDirectory,
} from '../../test/support/registry-client.ts'
import { isCode } from '../base/errors.ts'
import { CredentialHelpers } from './credential-helper.ts'

/** A directory with a `docker-credential-x` that runs this shell script. */
function helpers(t: TestContext, script: string) {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'docker-credential-x'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const env = { PATH: `${directory}:/usr/bin:/bin`, MARK: 'geheim' }
  return { directory, env, helpers: new CredentialHelpers(env) }
}

const signal = new AbortController().signal
const answer = (user: string, secret: string) =>
  `echo '{"ServerURL":"s","Username":"${user}","Secret":"${secret}"}'`

test('a helper is asked on standard input, with the environment it is given and no other', async t => {
  const { helpers: found, directory } = helpers(
    t,
    `cat > "$0.stdin"; env > "$0.env"; ${answer('anna', 'geheim')}`,
  )
  const credentials = await found.get('x', 'quay.io', signal)
  assert.equal(credentials?.basic, `Basic ${Buffer.from('anna:geheim').toString('base64')}`)
  assert.equal(credentials?.server, 'quay.io')
  assert.equal(readFileSync(join(directory, 'docker-credential-x.stdin'), 'utf8'), 'quay.io')
  const names = readFileSync(join(directory, 'docker-credential-x.env'), 'utf8').match(/^\w+/gm)
  assert.deepEqual(names?.filter(name => !['PWD', 'SHLVL', '_'].includes(name)).sort(), ['MARK', 'PATH'])
  await found.get('x', 'docker.io', signal)
  const asked = readFileSync(join(directory, 'docker-credential-x.stdin'), 'utf8')
  assert.equal(asked, 'https://index.docker.io/v1/')
})

test('the user <token> marks an identity token, and a helper may know nothing', async t => {
  const token = helpers(t, answer('<token>', 'refresh'))
  assert.equal((await token.helpers.get('x', 'quay.io', signal))?.identityToken, 'refresh')
  const none = helpers(t, 'echo credentials not found in native keychain; exit 1')
  assert.equal(await none.helpers.get('x', 'quay.io', signal), undefined)
})

test('what a broken helper did is said, and what it answered is not', async t => {
  const cases: ReadonlyArray<[script: string, message: RegExp]> = [
    ['echo no key store >&2; exit 3', /docker-credential-x for quay\.io: exit code 3: no key store$/],
    ['exit 1', /exit code 1: nothing was printed/],
    ['echo geheim', /its answer is not valid JSON/],
    [`echo '{"Username":"geheim"}'`, /its answer has no "Username" and "Secret"/],
    ['head -c 300000 /dev/zero', /its answer is longer than 262144 bytes/],
    ['kill -9 $$', /exit code 137/],
  ]
  for (const [script, message] of cases) {
    await assert.rejects(helpers(t, script).helpers.get('x', 'quay.io', signal), error => {
      assert.match((error as Error).message, message)
      assert.ok(!inspect(error, { depth: 9 }).includes('geheim'), script)
      return true
    })
  }
  const absent = helpers(t, 'true').helpers.get('absent', 'quay.io', signal)
  await assert.rejects(absent, /cannot start .*docker-credential-absent: no such program/)
})

test('a helper that hangs ends with its caller, and equal questions are asked once', async t => {
  const { helpers: found, directory } = helpers(
    t,
    `echo >> "$0.runs"; while test ! -e "$0.go"; do sleep 0.01; done; ${answer('a', 'b')}`,
  )
  const abort = new AbortController()
  const asked = [found.get('x', 'quay.io', signal), found.get('x', 'quay.io', abort.signal)]
  abort.abort()
  await assert.rejects(asked[1]!, error => isCode(error, 'cancelled'))
  writeFileSync(join(directory, 'docker-credential-x.go'), '')
  assert.equal((await asked[0])?.basic, `Basic ${Buffer.from('a:b').toString('base64')}`)
  assert.equal(readFileSync(join(directory, 'docker-credential-x.runs'), 'utf8'), '\n')
  rmSync(join(directory, 'docker-credential-x.go'))
  const alone = new AbortController()
  const hangs = found.get('x', 'quay.io', alone.signal)
  alone.abort()
  await assert.rejects(hangs, error => isCode(error, 'cancelled'))
})

test('credHelpers, credsStore and credential-helpers lead to the registry', async t => {
  const auth = { kind: 'basic', username: 'anna', password: 'geheim' } as const
  const registry = await startServer(t, { auth })
  registry.push(await smallImage(), 'app', 'v1')
  const name = `${registry.address}/app:v1`
  const { env, directory } = helpers(t, answer('anna', 'geheim'))
  const pull = (config: object, conf = '') => {
    const file = join(directory, 'config.json')
    writeFileSync(file, JSON.stringify(config))
    return resolve(startClient(t, conf, { authFiles: [file], helperEnv: env }), name)
  }
  await pull({ credHelpers: { [registry.address]: 'x' } })
  await pull({ credsStore: 'x' })
  await pull({}, 'credential-helpers = ["containers-auth.json", "x"]')
  await assert.rejects(pull({ credHelpers: { 'other.test': 'x' } }), saying('unknown', /access denied/))
  await assert.rejects(
    pull({ credsStore: 'absent' }),
    saying('unknown', /credential helper docker-credential-absent for .*: cannot start/),
  )
  const wrong = { auths: { [registry.address]: { username: 'anna', password: 'falsch' } } }
  await assert.rejects(
    pull(wrong, 'credential-helpers = ["containers-auth.json", "x"]'),
    saying('unknown', /denied/),
  )
  await pull(wrong, 'credential-helpers = ["x", "containers-auth.json"]')
})
