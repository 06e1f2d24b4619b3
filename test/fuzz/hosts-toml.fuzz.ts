import assert from 'node:assert/strict'
import { parseHostsFile } from '../../src/registry/hosts-file.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  `server = "https://registry-1.docker.io"
ca = ["ca.pem", "/abs.pem"]
[host."https://mirror.example.com:5000/path"]
  capabilities = ["pull", "resolve"]
  client = [["client.cert", "client.key"]]
  skip_verify = true
  override_path = true
  dial_timeout = "1s500ms"
  [host."https://mirror.example.com:5000/path".header]
    X-Key = ["a", "b"]
`,
  'client = "both.pem"\nserver = "http://[fe80::1]:5000"\n[header]\nauthorization = "Basic x"\n',
]

export const target: FuzzTarget = {
  inputs: mutated(seeds, [
    '[host."',
    '"]',
    '= ',
    '[[',
    ']]',
    '"""',
    "'",
    '\\u0000',
    'https://',
    '://',
    '@',
    'header',
    '__proto__',
  ]),
  run(input) {
    const { hosts, server } = parseHostsFile('/certs.d/host/hosts.toml', input.toString())
    for (const { address, tls, headers, connectTimeoutMs } of [...hosts, server]) {
      if (address !== undefined) {
        const url = new URL(`${address.scheme}//${address.host}${address.root}/team/app`)
        assert.ok(url.protocol === 'https:' || url.protocol === 'http:')
        assert.equal(url.username + url.password + url.search + url.hash, '')
        assert.ok(url.pathname.endsWith('/team/app'))
      }
      for (const file of [...tls.ca, ...tls.client.flatMap(({ cert, key }) => [cert, key])]) {
        assert.ok(file.startsWith('/'))
      }
      for (const value of Object.values(headers)) assert.match(value, /^[\x20-\x7e]*$/)
      assert.ok(connectTimeoutMs === undefined || connectTimeoutMs > 0)
    }
  },
  runs: 3000,
}
