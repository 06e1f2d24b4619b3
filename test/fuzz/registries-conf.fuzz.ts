import assert from 'node:assert/strict'
import { parseRegistriesFile } from '../../src/registry/registries-file.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  `unqualified-search-registries = ["docker.io", "quay.io:443"]
short-name-mode = "permissive"
credential-helpers = ["containers-auth.json", "ecr-login"]
[[registry]]
prefix = "*.example.com"
location = "internal:5000/x"
insecure = true
[[registry.mirror]]
location = "mirror:5000"
pull-from-mirror = "digest-only"
[[registry]]
location = "b.test/a:v1"
blocked = true
[aliases]
fedora = "registry.example.com/fedora"
`,
]

export const target: FuzzTarget = {
  inputs: mutated(seeds, [
    '[[registry]]\n',
    '[[registry.mirror]]\n',
    '= ',
    '"""',
    "'",
    '[aliases]\n',
    '{',
    '__proto__',
    '*.',
  ]),
  run(input) {
    const { rules, aliases, searchRegistries, credentialHelpers } = parseRegistriesFile(
      '/r.conf',
      input.toString(),
    )
    for (const { prefix, origin, mirrors } of rules) {
      assert.notEqual(prefix, '')
      assert.match(origin, /^\/r\.conf(:\d+)?$/)
      for (const { location } of mirrors) assert.doesNotMatch(location, /:\/\/|[\s?#@]/)
    }
    for (const [name, { value }] of aliases) assert.ok(name !== '' && (value === '' || value.includes('/')))
    for (const host of searchRegistries?.value ?? []) assert.doesNotMatch(host, /[/\s]/)
    for (const name of credentialHelpers?.value ?? []) assert.doesNotMatch(name, /[/\s]|^\./)
  },
  runs: 3000,
}
