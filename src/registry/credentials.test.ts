import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { format, inspect } from 'node:util'
import { isCode } from '../base/errors.ts'
import { AuthFiles } from './auth-files.ts'
import { Credentials } from './credentials.ts'

const base64 = (text: string) => Buffer.from(text).toString('base64')

test('a secret shows nowhere', () => {
  const secrets = [
    Credentials.from({ username: 'anna', password: 'geheim' }),
    Credentials.from({ identityToken: 'geheim' }),
    Credentials.from({ registryToken: 'geheim' }),
  ]
  for (const credentials of secrets) {
    const prints = [
      String(credentials),
      JSON.stringify({ credentials }),
      inspect(credentials, { showHidden: true, depth: 9 }),
      format('%o', credentials),
    ]
    for (const print of prints)
      assert.ok(
        print.includes('[credentials]') && !print.includes('geheim') && !print.includes('anna'),
        print,
      )
  }
})

test('the fields of an AuthConfig', () => {
  assert.equal(Credentials.from({}), undefined)
  assert.equal(Credentials.from({ username: '', password: '', serverAddress: 'x' }), undefined)
  assert.equal(Credentials.from({ username: 'a', password: 'b:c' })?.basic, `Basic ${base64('a:b:c')}`)
  assert.equal(Credentials.from({ auth: base64('a:b:c\0\0') })?.basic, `Basic ${base64('a:b:c')}`)
  assert.equal(Credentials.from({ identityToken: 't', username: 'a', password: 'b' })?.identityToken, 't')
  assert.equal(Credentials.from({ registryToken: 't', auth: base64('a:b') })?.registryToken, 't')
  assert.equal(
    Credentials.from({ auth: base64('a:b'), serverAddress: 'https://index.docker.io/v1/' })?.server,
    'docker.io',
  )
  assert.equal(
    Credentials.from({ auth: base64('a:b'), serverAddress: 'quay.io:443/team' })?.server,
    'quay.io:443',
  )
})

test('fields that cannot be used are named, not quoted', () => {
  const geheim = base64('geheim')
  assert.throws(
    () => Credentials.from({ auth: geheim }),
    error =>
      isCode(error, 'invalid') &&
      /^auth\.auth: expected/.test((error as Error).message) &&
      !inspect(error).includes(geheim),
  )
  assert.throws(
    () => Credentials.from({ registryToken: 'a\r\nX-Evil: 1' }),
    /^BerthError: auth\.registry_token: expected printable/,
  )
})

test('fingerprints tell equal secrets from others', () => {
  const a = Credentials.from({ username: 'a', password: 'b' })
  assert.equal(a?.fingerprint, Credentials.from({ auth: base64('a:b') })?.fingerprint)
  assert.notEqual(a?.fingerprint, Credentials.from({ username: 'a', password: 'c' })?.fingerprint)
  assert.notEqual(
    Credentials.from({ identityToken: 't' })?.fingerprint,
    Credentials.from({ registryToken: 't' })?.fingerprint,
  )
})

function authFiles(t: TestContext, ...contents: readonly string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'berth-auth-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const files = contents.map((content, index) => {
    const file = join(directory, `${index}.json`)
    writeFileSync(file, content)
    return file
  })
  const found = new AuthFiles([...files, join(directory, 'absent.json')])
  const sources = (name: string) => {
    const [host = '', ...path] = name.split('/')
    return found.find({ host, repository: path.join('/') })
  }
  const basic = (name: string) => {
    const source = sources(name)[0]
    const header = source !== undefined && 'credentials' in source ? source.credentials.basic : undefined
    return header && Buffer.from(header.slice(6), 'base64').toString()
  }
  return { basic, files, sources }
}

const entry = (text: string) => ({ auth: base64(text) })

test('the longest path prefix of a host wins, in the first file that knows it', t => {
  const { basic } = authFiles(
    t,
    JSON.stringify({
      auths: {
        'quay.io': entry('host:1'),
        'quay.io/team': entry('team:1'),
        'quay.io/team/app': entry('app:1'),
      },
    }),
    JSON.stringify({
      auths: { 'quay.io/team/app/deeper': entry('other:1'), 'gcr.io:443': entry('port:1') },
      HttpHeaders: {},
    }),
  )
  assert.equal(basic('quay.io/team/app'), 'app:1')
  assert.equal(basic('quay.io/team/app/deeper'), 'app:1')
  assert.equal(basic('quay.io/team/apps'), 'team:1')
  assert.equal(basic('quay.io/teams/app'), 'host:1')
  assert.equal(basic('gcr.io:443/x'), 'port:1')
  assert.equal(basic('gcr.io/x'), undefined)
  assert.equal(basic('evil.quay.io/team/app'), undefined)
})

test('Docker Hub’s old keys', t => {
  const old = authFiles(
    t,
    JSON.stringify({
      auths: { 'https://index.docker.io/v1/': entry('hub:1'), 'https://ghcr.io': entry('gh:1') },
    }),
  )
  assert.equal(old.basic('docker.io/library/busybox'), 'hub:1')
  assert.equal(old.basic('ghcr.io/a'), 'gh:1')
  const both = authFiles(
    t,
    JSON.stringify({
      auths: {
        'docker.io': entry('new:1'),
        'https://index.docker.io/v1/': entry('old:1'),
        'docker.io/me': entry('me:1'),
      },
    }),
  )
  assert.equal(both.basic('docker.io/library/busybox'), 'new:1')
  assert.equal(both.basic('docker.io/me/x'), 'me:1')
})

test('a changed file is read again', t => {
  const { basic, files } = authFiles(t, '{}')
  assert.equal(basic('quay.io/a'), undefined)
  writeFileSync(files[0]!, JSON.stringify({ auths: { 'quay.io': entry('a:b') } }))
  assert.equal(basic('quay.io/a'), 'a:b')
})

test('a broken file is named without its content', t => {
  const { basic, files } = authFiles(t, '{"auths": {"quay.io": {"auth": "geheim"')
  assert.throws(
    () => basic('quay.io/a'),
    error =>
      isCode(error, 'unknown') &&
      (error as Error).message === `${files[0]}: not valid JSON` &&
      !inspect(error).includes('geheim'),
  )
  const array = authFiles(t, '[]')
  assert.throws(() => array.basic('quay.io/a'), /expected an object with "auths"/)
  for (const helper of ['"../../bin/sh"', '"a/b"', '""', '7', '" x"']) {
    const wrong = authFiles(t, `{"credHelpers": {"quay.io": ${helper}}}`)
    assert.throws(
      () => wrong.basic('quay.io/a'),
      /credHelpers\["quay\.io"\]: expected what follows "docker-cred/,
    )
  }
})

test('helpers come where their host does; what is in the file ends the search', t => {
  const { sources, files } = authFiles(
    t,
    JSON.stringify({
      auths: { 'quay.io/team': entry('team:1'), 'gcr.io': {} },
      credHelpers: { 'quay.io': 'ecr-login', 'https://index.docker.io/v1/': 'hub' },
      credsStore: 'pass',
    }),
    JSON.stringify({ auths: { 'gcr.io': entry('second:1') } }),
  )
  const shown = (name: string) =>
    sources(name).map(source => ('helper' in source ? `${source.origin} → ${source.helper}` : source.origin))
  const [first, second] = files
  const store = `${first}: credsStore → pass`
  const quay = `${first}: credHelpers["quay.io"] → ecr-login`
  assert.deepEqual(shown('quay.io/team/app'), [`${first}: auths["quay.io/team"]`, quay, store])
  assert.deepEqual(shown('quay.io/app'), [quay, store])
  assert.deepEqual(shown('docker.io/library/x'), [
    `${first}: credHelpers["https://index.docker.io/v1/"] → hub`,
    store,
  ])
  assert.deepEqual(shown('gcr.io/x'), [store, `${second}: auths["gcr.io"]`])
})
