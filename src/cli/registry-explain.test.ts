import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { run } from './program.ts'

/** Files in a directory of the test, and the command with flags that lead there. */
function explained(t: TestContext, files: Readonly<Record<string, string>>) {
  const directory = mkdtempSync(join(tmpdir(), 'berth-explain-'))
  t.after(() => rmSync(directory, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name, '..'), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  const flags = [
    '--config-dir=',
    `--registries-conf=${directory}/registries.conf`,
    `--registries-conf-dir=${directory}/registries.conf.d`,
    `--certs-dir=${directory}/certs.d`,
    `--global-auth-file=${directory}/auth.json`,
    `--namespaced-auth-dir=${directory}/auth`,
    `--signature-policy=${directory}/policy.json`,
    `--signature-policy-dir=${directory}/policies`,
  ]
  const explain = async (...args: readonly string[]) => {
    let [stdout, stderr] = ['', '']
    const streams = {
      stdout: { write: (text: string) => (stdout += text) },
      stderr: { write: (text: string) => (stderr += text) },
    }
    const code = await run(['registry', 'explain', ...flags, ...args], streams)
    assert.ok(!stdout.includes('geheim') && !stderr.includes('geheim'))
    return { code, stdout: stdout.replaceAll(directory, '/D'), stderr: stderr.replaceAll(directory, '/D') }
  }
  return { directory, explain }
}

const POLICY = { 'policy.json': '{"default":[{"type":"insecureAcceptAnything"}]}' }

test('the endpoints in their order, with what says so, how they are reached and as whom', async t => {
  const { explain } = explained(t, {
    ...POLICY,
    'registries.conf': `unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.test/hub"
insecure = true
[[registry.mirror]]
location = "digests.test"
pull-from-mirror = "digest-only"
`,
    'certs.d/mirror.test/ca.crt': '',
    'auth.json': '{"auths":{"mirror.test":{"username":"a","password":"geheim"}},"credsStore":"pass"}',
  })
  const { code, stdout } = await explain('busybox')
  assert.equal(
    stdout,
    `docker.io/library/busybox:latest
  name:        /D/registries.conf:1 (unqualified-search-registries)
  decided by:  /D/registries.conf:2: [[registry]] with prefix "docker.io"
  note:        /D/registries.conf:7: mirror digests.test is for digests only

  1. https://mirror.test/v2/hub/library/busybox (mirror)
     because of:  /D/registries.conf:4
     TLS:         certificate is not verified; plain http if nobody speaks TLS
                  /D/certs.d/mirror.test/ca.crt
     credentials: /D/auth.json: auths["mirror.test"] (user and password)

  2. https://registry-1.docker.io/v2/library/busybox (registry)
     because of:  /D/registries.conf:2
     TLS:         certificate is verified
     credentials: /D/auth.json: credsStore: docker-credential-pass is asked

  policy:      /D/policy.json: default
               insecureAcceptAnything: accepted unseen
`,
  )
  assert.equal(code, 0)
})

test('hosts.toml, JSON, and the files of a namespace, which stay', async t => {
  const name = createHash('sha256').update('quay.io/a').digest('hex')
  const { explain, directory } = explained(t, {
    ...POLICY,
    'certs.d/quay.io/hosts.toml': `[host."http://cache.test:5000"]
capabilities = ["pull"]
[host."http://cache.test:5000".header]
X-Key = "geheim"
`,
    [`auth/team-${name}.json`]: '{"auths":{"cache.test:5000":{"identitytoken":"geheim"}}}',
    'policies/team.json': '{"default":[{"type":"reject"}]}',
  })
  const { stdout } = await explain('--json', '--namespace=team', 'quay.io/a:1')
  const [found] = JSON.parse(stdout)
  assert.deepEqual(found.endpoints[0], {
    urls: ['http://cache.test:5000/v2/a'],
    kind: 'mirror',
    origin: '/D/certs.d/quay.io/hosts.toml:1',
    limits: ['is not asked what the tag stands for'],
    tls: 'none: plain http',
    certificates: [],
    headers: ['x-key'],
    credentials: [`/D/auth/team-${name}.json: auths["cache.test:5000"] (identity token)`],
  })
  assert.deepEqual(found.policy, {
    origin: '/D/policies/team.json: default',
    requirements: ['reject: refused'],
  })
  assert.deepEqual(readdirSync(join(directory, 'auth')), [`team-${name}.json`])
  const other = await explain('--namespace=other', 'quay.io/a:1')
  assert.match(other.stdout, /headers: {5}x-key\n {5}credentials: none on this node\n/)
})

test('what a pull would say is said, and is a failure', async t => {
  const { explain } = explained(t, {
    ...POLICY,
    'registries.conf': '[[registry]]\nlocation = "bad.test"\nblocked = true\n',
    'certs.d/odd.test/hosts.toml': 'sever = "x"',
  })
  const blocked = await explain('bad.test/x')
  assert.equal(blocked.code, 1)
  assert.match(
    blocked.stdout,
    /error: {7}bad\.test\/x:latest: registry bad\.test is blocked by \/D\/registries\.conf:1\n/,
  )
  const odd = await explain('odd.test/x')
  assert.equal(odd.code, 1)
  assert.match(odd.stdout, /hosts\.toml:1: sever: unknown key; did you mean "server"\?/)
  const invalid = await explain('Not A Name')
  assert.equal(invalid.code, 1)
  assert.match(invalid.stderr, /^berth: image reference "Not A Name": /)
})
