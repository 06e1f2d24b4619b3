import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isCode } from '../base/errors.ts'
import { parseReference } from './reference.ts'
import { watchRegistries } from './registries.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`

/** Writes the files and gives what Registries makes of them: `host/repository` with `+insecure` or `(mirror)`. */
function configured(t: TestContext, main: string, dropIns: Record<string, string> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'berth-registries-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'registries.conf')
  writeFileSync(file, main)
  mkdirSync(join(directory, 'conf.d'))
  for (const [name, text] of Object.entries(dropIns)) writeFileSync(join(directory, 'conf.d', name), text)
  const watched = watchRegistries({ file, directory: join(directory, 'conf.d'), insecure: ['lab:5000'] })
  const endpoints = (text: string) =>
    watched
      .current()
      .endpoints(parseReference(text))
      .map(e => `${e.host}/${e.repository}${e.insecure ? ' +insecure' : ''}${e.mirror ? ' (mirror)' : ''}`)
  const candidates = (text: string) =>
    watched
      .current()
      .meanings(text)
      .map(({ reference }) => `${reference}`)
  return { file, directory, endpoints, candidates }
}

test('without a file, a registry is its own endpoint', t => {
  const { endpoints, candidates } = configured(t, '')
  assert.deepEqual(endpoints('busybox'), ['docker.io/library/busybox'])
  assert.deepEqual(endpoints('quay.io/a/b'), ['quay.io/a/b'])
  assert.deepEqual(endpoints('localhost:5000/a'), ['localhost:5000/a +insecure'])
  assert.deepEqual(endpoints('127.3.2.1/a'), ['127.3.2.1/a +insecure'])
  assert.deepEqual(endpoints('[::1]:5000/a'), ['[::1]:5000/a +insecure'])
  assert.deepEqual(endpoints('127.0.0.1.example.com/a'), ['127.0.0.1.example.com/a'])
  assert.deepEqual(endpoints('lab:5000/a'), ['lab:5000/a +insecure'])
  assert.deepEqual(candidates('busybox'), ['docker.io/library/busybox:latest'])
})

test('the longest prefix wins, ends at a component and is replaced by the location', t => {
  const { endpoints } = configured(
    t,
    `
    [[registry]]
    prefix = "example.com"
    location = "internal:5000"
    insecure = true
    [[registry]]
    prefix = "example.com/team"
    location = "internal:6000/x/y"
    [[registry]]
    prefix = "*.example.org"
    location = "wild/o"
    [[registry]]
    prefix = "a.example.org"
    location = "exact"
    [[registry]]
    prefix = "*.example.net"
    insecure = true
    `,
  )
  assert.deepEqual(endpoints('example.com/app'), ['internal:5000/app +insecure'])
  assert.deepEqual(endpoints('example.com/team/app'), ['internal:6000/x/y/app'])
  assert.deepEqual(endpoints('example.com/teams/app'), ['internal:5000/teams/app +insecure'])
  assert.deepEqual(endpoints('example.community/app'), ['example.community/app'])
  assert.deepEqual(endpoints('b.c.example.org/app'), ['wild/o/app'])
  assert.deepEqual(endpoints('a.example.org/app'), ['exact/app'])
  assert.deepEqual(endpoints('example.org/app'), ['example.org/app'])
  assert.deepEqual(endpoints('evil.com/x.example.org/app'), ['evil.com/x.example.org/app'])
  assert.deepEqual(endpoints('x.example.net/app'), ['x.example.net/app +insecure'])
})

test('mirrors come first, in their order, for the kinds of reference they are meant for', t => {
  const { endpoints } = configured(
    t,
    `
    [[registry]]
    location = "registry.k8s.io"
    [[registry.mirror]]
    location = "127.0.0.1:5000/registry.k8s.io"
    [[registry.mirror]]
    location = "tags.example.com"
    insecure = true
    pull-from-mirror = "tag-only"
    [[registry.mirror]]
    location = "digests.example.com"
    pull-from-mirror = "digest-only"
    [[registry]]
    location = "quay.io"
    mirror-by-digest-only = true
    [[registry.mirror]]
    location = "mirror.example.com"
    `,
  )
  assert.deepEqual(endpoints('registry.k8s.io/e2e/busybox:1'), [
    '127.0.0.1:5000/registry.k8s.io/e2e/busybox +insecure (mirror)',
    'tags.example.com/e2e/busybox +insecure (mirror)',
    'registry.k8s.io/e2e/busybox',
  ])
  assert.deepEqual(endpoints(`registry.k8s.io/pause@${DIGEST}`), [
    '127.0.0.1:5000/registry.k8s.io/pause +insecure (mirror)',
    'digests.example.com/pause (mirror)',
    'registry.k8s.io/pause',
  ])
  assert.deepEqual(endpoints('quay.io/a:1'), ['quay.io/a'])
  assert.deepEqual(endpoints(`quay.io/a@${DIGEST}`), ['mirror.example.com/a (mirror)', 'quay.io/a'])
})

test('a blocked registry is refused, naming file and line', t => {
  const { endpoints, file } = configured(t, '\n[[registry]]\nlocation = "bad.example.com"\nblocked = true')
  assert.throws(() => endpoints('bad.example.com/x'), {
    code: 'unknown',
    message: new RegExp(`blocked by ${file}:2$`),
  })
})

test('a prefix may be a single tag or digest', t => {
  const { endpoints } = configured(
    t,
    `
    [[registry]]
    prefix = "example.com/app:bad"
    location = "example.com/app"
    blocked = true
    [[registry]]
    prefix = "example.com/app@${DIGEST}"
    location = "old.example.com/app"
    `,
  )
  assert.throws(() => endpoints('example.com/app:bad'), /registry example\.com\/app:bad is blocked/)
  assert.deepEqual(endpoints('example.com/app:badly'), ['example.com/app'])
  assert.deepEqual(endpoints(`example.com/app@${DIGEST}`), ['old.example.com/app'])
})

test('short names: alias, then the search list, as the mode says', t => {
  const search = 'unqualified-search-registries = ["quay.io", "docker.io"]\n'
  const aliases = '[aliases]\n"fedora" = "registry.example.com/fedora"\n"gone" = "quay.io/gone"\n'
  const permissive = configured(t, search + aliases, { '10-x.conf': '[aliases]\n"gone" = ""\n' })
  assert.deepEqual(permissive.candidates('fedora:39'), ['registry.example.com/fedora:39'])
  assert.deepEqual(permissive.candidates('gone'), ['quay.io/gone:latest', 'docker.io/library/gone:latest'])
  assert.deepEqual(permissive.candidates('gcr.io/x'), ['gcr.io/x:latest'])
  const enforcing = configured(t, `${search}short-name-mode = "enforcing"\n${aliases}`)
  assert.deepEqual(enforcing.candidates(`fedora@${DIGEST}`), [`registry.example.com/fedora@${DIGEST}`])
  assert.throws(() => enforcing.candidates('busybox'), /may mean quay\.io\/busybox, docker\.io\/busybox/)
})

test('drop-ins override, and a change is seen by the next use', t => {
  const { endpoints, candidates, directory } = configured(
    t,
    'unqualified-search-registries = ["a.io"]\n[[registry]]\nlocation = "x.io"\ninsecure = true\n',
    {
      '20.conf': 'unqualified-search-registries = ["c.io"]',
      '10.conf': 'unqualified-search-registries = ["b.io"]\n[[registry]]\nlocation = "x.io"\n',
      README: 'not = [toml',
    },
  )
  assert.deepEqual(candidates('app'), ['c.io/app:latest'])
  assert.deepEqual(endpoints('x.io/app'), ['x.io/app'])
  writeFileSync(join(directory, 'conf.d', '30.conf'), 'unqualified-search-registries = ["d.io"]')
  assert.deepEqual(candidates('app'), ['d.io/app:latest'])
  rmSync(join(directory, 'conf.d', '30.conf'))
  assert.deepEqual(candidates('app'), ['c.io/app:latest'])
})

test('what is wrong with a file is said with file, line and the nearest key', t => {
  const cases: ReadonlyArray<[source: string, message: RegExp]> = [
    [
      '\nunqualified-search-registry = ["a"]',
      /registries\.conf:2: unqualified-search-registry: unknown key; did you mean "unqualified-search-registries"\?/,
    ],
    [
      '[[registry]]\nlocation="a"\nblokced=true',
      /:3: registry "a": blokced: unknown key; did you mean "blocked"\?/,
    ],
    [
      '[[registry]]\nlocation="a"\n[[registry.mirror]]\nlocation="b"\ntls=true',
      /:5: registry "a" mirror 1: tls: unknown key; expected one of location, /,
    ],
    ['[registries.search]\nregistries=["a"]', /version 1 of the format/],
    [
      'short-name-mode = "strict"',
      /:1: short-name-mode: expected "enforcing", "permissive", "disabled", got "strict"/,
    ],
    [
      '[[registry]]\nlocation="https://a"',
      /registry "https:\/\/a": location: expected host\[:port\]\[\/path\], without "https:\/\/"/,
    ],
    ['[[registry]]\ninsecure=true', /registry 1: prefix: expected/],
    ['[[registry]]\nprefix="a"', /registry "a": location: is missing/],
    ['[[registry]]\nlocation="a"\ninsecure="yes"', /insecure: expected true or false, got "yes"/],
    ['[registry]\nlocation="a"', /registry: expected \[\[registry\]\]/],
    ['[[registry]]\nlocation="a"\n[[registry.mirror]]\ninsecure=true', /mirror 1: location: is missing/],
    [
      '[[registry]]\nlocation="a"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation="b"\npull-from-mirror="all"',
      /cannot be set together/,
    ],
    ['[aliases]\nx = "quay.io/x:1"', /:2: aliases: x: expected host\/path without tag/],
    [
      'credential-helpers = ["../x"]',
      /:1: credential-helpers: "\.\.\/x": expected what follows "docker-credential-"/,
    ],
    ['additional-layer-store-auth-helper = "x"', /additional layer stores are not supported/],
    ['[aliases]\n"quay.io/x" = "quay.io/y"', /:2: aliases: quay\.io\/x: expected a name without registry/],
    ['[aliases]\n"x:1" = "quay.io/y"', /:2: aliases: x:1: expected a name without registry, tag and digest/],
    [
      '[[registry]]\nlocation="a"\n[[registry]]\nlocation="b"\ninsecure=1\n[[registry.mirror]]\nlocation="c:0"',
      /conf:7: registry "b" mirror 1: location: expected host.*conf:5: registry "b": insecure: expected true/,
    ],
    ['a = [', /registries\.conf:1: not valid TOML/],
  ]
  for (const [source, message] of cases) {
    const { endpoints } = configured(t, source)
    assert.throws(
      () => endpoints('busybox'),
      error => isCode(error, 'unknown') && message.test((error as Error).message),
      `${source} should say ${message}`,
    )
  }
})
