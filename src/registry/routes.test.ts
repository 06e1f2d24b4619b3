import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { temporaryDirectory } from '../../test/support/registry-client.ts'
import type { Endpoint } from './endpoint.ts'
import { parseReference } from './reference.ts'
import { Routes } from './routes.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`

/** Writes files below a directory and gives what Routes makes of them. */
function routed(t: TestContext, files: Readonly<Record<string, string>>) {
  const directory = temporaryDirectory(t)
  const write = (name: string, text: string) => {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  for (const [name, text] of Object.entries(files)) write(name, text)
  const routes = new Routes({
    file: join(directory, 'registries.conf'),
    directory: join(directory, 'registries.conf.d'),
    insecure: [],
    hostsDirs: ['containers', 'containerd', 'docker'].map(name => join(directory, name)),
  })
  const find = (text: string) => routes.find(parseReference(text))
  const endpoints = (text: string) => find(text).endpoints.map(shown)
  return { directory, write, find, endpoints }
}

function shown(endpoint: Endpoint): string {
  const { schemes, host, root, repository, namespace, insecure, mirror } = endpoint
  const marks = [
    namespace === undefined ? '' : `ns=${namespace}`,
    insecure ? 'insecure' : '',
    mirror ? 'mirror' : '',
    endpoint.resolves ? '' : 'no-resolve',
    endpoint.pulls ? '' : 'no-pull',
  ]
  return [`${schemes.join('|')}//${host}${root}/${repository}`, ...marks.filter(mark => mark !== '')].join(
    ' ',
  )
}

test('hosts in the order of the file, then the server', t => {
  const { endpoints, find, directory } = routed(t, {
    'containerd/docker.io/hosts.toml': `
server = "https://registry-1.docker.io"
[host."https://b.example.com"]
  capabilities = ["pull"]
[host."http://a.example.com:5000/"]
  capabilities = ["Pull", "resolve"]
[host."c.example.com/v2/docker"]
  override_path = true
  skip_verify = true
[host."https://d.example.com/sub/v2"]
[host."https://e.example.com/sub/"]
  ca = ["ca.pem", "/abs.pem"]
  client = [["client.cert", "client.key"], ["both.pem", "both.pem"]]
  dial_timeout = "1s500ms"
  [host."https://e.example.com/sub/".header]
    X-One = "1"
    x-two = ["2", "3"]
`,
  })
  assert.deepEqual(endpoints('busybox'), [
    'https://b.example.com/v2/library/busybox ns=docker.io mirror no-resolve',
    'http://a.example.com:5000/v2/library/busybox ns=docker.io insecure mirror',
    'https://c.example.com/v2/docker/library/busybox ns=docker.io insecure mirror',
    'https://d.example.com/sub/v2/library/busybox ns=docker.io mirror',
    'https://e.example.com/sub/v2/library/busybox ns=docker.io mirror',
    'https://docker.io/v2/library/busybox',
  ])
  const { endpoints: all, decision } = find('busybox')
  const base = join(directory, 'containerd/docker.io')
  assert.equal(decision, join(base, 'hosts.toml'))
  assert.deepEqual(
    all.map(({ origin }) => origin),
    [3, 5, 7, 10, 11, 2].map(line => `${base}/hosts.toml:${line}`),
  )
  const { tls, headers, connectTimeoutMs } = all[4]!
  assert.deepEqual(tls, {
    ca: [`${base}/ca.pem`, '/abs.pem'],
    client: [
      { cert: `${base}/client.cert`, key: `${base}/client.key` },
      { cert: `${base}/both.pem`, key: `${base}/both.pem` },
    ],
  })
  assert.deepEqual({ ...headers }, { 'x-one': '1', 'x-two': '2, 3' })
  assert.equal(connectTimeoutMs, 1500)
})

test('the settings on top of the file are those of the server, which defaults to the registry itself', t => {
  const { endpoints, find } = routed(t, {
    'containerd/a.example.com/hosts.toml': 'ca = "ca.pem"\ncapabilities = ["pull", "resolve"]\n',
    'containerd/b.example.com/hosts.toml': 'server = "https://c.example.com"\nskip_verify = true\n',
    'containerd/localhost:5000/hosts.toml': 'skip_verify = false',
    'containerd/d.example.com/hosts.toml': '',
  })
  assert.deepEqual(endpoints('a.example.com/x'), ['https://a.example.com/v2/x'])
  assert.equal(find('a.example.com/x').endpoints[0]?.tls.ca.length, 1)
  assert.deepEqual(endpoints('b.example.com/x'), ['https://c.example.com/v2/x ns=b.example.com insecure'])
  assert.deepEqual(endpoints('localhost:5000/x'), ['https://localhost:5000/v2/x'])
  assert.deepEqual(endpoints('localhost:5001/x'), ['https:|http://localhost:5001/v2/x insecure'])
  assert.deepEqual(endpoints('d.example.com/x'), ['https://d.example.com/v2/x'])
})

test('directories of a host: with the port in underscores, as it is, then _default', t => {
  const mirror = (name: string) => `[host."https://${name}"]`
  const { endpoints, write } = routed(t, {
    'containerd/r.test_5000_/hosts.toml': mirror('one'),
    'containerd/r.test:5000/hosts.toml': mirror('two'),
    'containerd/r.test:6000/hosts.toml': mirror('three'),
    'containerd/_default/hosts.toml': mirror('four'),
    'containerd/certs.test/ca.crt': '',
    'docker/late.test/hosts.toml': mirror('five'),
    'docker/certs.test/hosts.toml': mirror('six'),
  })
  const first = (name: string) => endpoints(`${name}/x`)[0]?.split('/')[2]
  assert.equal(first('r.test:5000'), 'one')
  assert.equal(first('r.test:6000'), 'three')
  assert.equal(first('r.test'), 'four')
  // As in containerd: _default of one directory goes before the next directory.
  assert.equal(first('late.test'), 'four')
  // A directory with certificates alone has no hosts.toml, and is the host's own.
  assert.equal(first('certs.test'), 'six')
  write('containers/r.test/hosts.toml', mirror('new'))
  assert.equal(first('r.test'), 'new')
  write('containers/r.test/hosts.toml', mirror('newer'))
  assert.equal(first('r.test'), 'newer')
})

test('registries.conf decides about what its tables cover, and says which file it overrules', t => {
  const { find, endpoints, directory } = routed(t, {
    'registries.conf':
      '\n[[registry]]\nlocation = "a.test/team"\n[[registry.mirror]]\nlocation = "m.test/t"\n',
    'containerd/a.test/hosts.toml': '[host."https://other.test"]',
  })
  assert.deepEqual(
    endpoints('a.test/team/x'),
    ['https://m.test/t/x mirror', 'https://a.test/team/x'].map(withRoot),
  )
  const team = find(`a.test/team/x@${DIGEST}`)
  assert.equal(team.decision, `${directory}/registries.conf:2: [[registry]] with prefix "a.test/team"`)
  const overruled = `${directory}/containerd/a.test/hosts.toml is not used: registries.conf goes before`
  assert.deepEqual(team.notes, [overruled])
  assert.deepEqual(
    team.endpoints.map(({ origin }) => origin),
    [4, 2].map(line => `${directory}/registries.conf:${line}`),
  )
  const other = find('a.test/other/x')
  assert.equal(other.decision, `${directory}/containerd/a.test/hosts.toml`)
  assert.deepEqual(other.notes, [])
  assert.equal(find('b.test/x').decision, 'no file says anything about this registry')
})

function withRoot(text: string): string {
  return text.replace(/^(https:\/\/[^/]+)\//, '$1/v2/')
}

test('what is wrong with a hosts.toml is said with file, line and the nearest key', t => {
  const cases: ReadonlyArray<[source: string, message: RegExp]> = [
    ['sever = "x"', /hosts\.toml:1: sever: unknown key; did you mean "server"\?/],
    [
      '[host."https://a"]\n\nskip-verify = true',
      /:3: host "https:\/\/a": skip-verify: unknown key; did you mean "skip_verify"/,
    ],
    [
      '[host."https://a"]\ncapabilities = ["pul"]',
      /:2: .*capabilities: "pul": expected "pull", "resolve", "push"/,
    ],
    ['[host."ftp://a"]', /:1: host "ftp:\/\/a": .*expected "https:\/\/host/],
    ['[host."https://user:pw@a"]', /expected "https:\/\/host/],
    ['[host."https://a?x=1"]', /expected "https:\/\/host/],
    ['server = "https://a b"', /:1: server: expected/],
    ['[host]\n"https://a" = 1', /:2: host: https:\/\/a: expected a table/],
    ['ca = 1', /:1: ca: expected a file or a list of files/],
    ['client = [["a", "b", "c"]]', /:1: client: expected a file, a list of files, or a list of/],
    ['dial_timeout = "soon"', /:1: dial_timeout: expected a duration/],
    ['[header]\nHost = "x"', /:2: header: Host: is no header that can be set/],
    ['[header]\n"a b" = "x"', /is no header/],
    ['[header]\nx = "geheim\\u000aY: 1"', /:2: header: x: expected printable ASCII text/],
    ['server = ', /:1: not valid TOML/],
  ]
  for (const [source, message] of cases) {
    const { find } = routed(t, { 'containerd/r.test/hosts.toml': source })
    assert.throws(
      () => find('r.test/x'),
      error => message.test((error as Error).message) && !(error as Error).message.includes('geheim'),
      `${source} should say ${message}`,
    )
  }
})
