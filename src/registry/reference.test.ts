import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isCode } from '../base/errors.ts'
import { parseReference } from './reference.ts'

const HEX = 'c0ffee00'.repeat(8)

test('names are normalised like Docker’s', () => {
  const cases: ReadonlyArray<[text: string, canonical: string, familiar: string]> = [
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['bitnami/redis', 'docker.io/bitnami/redis:latest', 'bitnami/redis:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['127.0.0.1:5000/a/b', '127.0.0.1:5000/a/b:latest', '127.0.0.1:5000/a/b:latest'],
    ['[::1]:5000/app:v1', '[::1]:5000/app:v1', '[::1]:5000/app:v1'],
    ['registry:5000/app', 'registry:5000/app:latest', 'registry:5000/app:latest'],
    ['Host/app', 'Host/app:latest', 'Host/app:latest'],
    ['quay.io/a__b/c--d/e.f_g', 'quay.io/a__b/c--d/e.f_g:latest', 'quay.io/a__b/c--d/e.f_g:latest'],
    [`busybox@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`, `busybox@sha256:${HEX}`],
    [`quay.io/a:v1@sha256:${HEX}`, `quay.io/a@sha256:${HEX}`, `quay.io/a@sha256:${HEX}`],
    [`${HEX}:tag`.slice(1), `docker.io/library/${HEX.slice(1)}:tag`, `${HEX.slice(1)}:tag`],
  ]
  for (const [text, canonical, familiar] of cases) {
    const reference = parseReference(text)
    assert.equal(reference.toString(), canonical)
    assert.equal(reference.familiar, familiar)
  }
})

test('a short name goes to the default domain that is asked for', () => {
  assert.equal(parseReference('busybox', 'quay.io').toString(), 'quay.io/busybox:latest')
  assert.equal(parseReference('docker.io/busybox', 'quay.io').toString(), 'docker.io/library/busybox:latest')
})

test('a digest wins over a tag', () => {
  const reference = parseReference(`busybox:1@sha256:${HEX}`)
  assert.equal(reference.tag, undefined)
  assert.equal(reference.digest, `sha256:${HEX}`)
})

test('malformed references are invalid and quoted in the message', () => {
  const bad = [
    '',
    ' busybox',
    'Busybox',
    'busybox:',
    'busybox:-x',
    'busybox:a b',
    `busybox:${'x'.repeat(129)}`,
    'busybox@sha256:abc',
    `busybox@sha512:${HEX}${HEX}`,
    `busybox@sha256:${HEX.toUpperCase()}`,
    `busybox@sha256:${HEX}@sha256:${HEX}`,
    'a//b',
    '/a',
    'a/',
    'a/../b',
    '../etc/passwd',
    'a._b',
    'a___b',
    'a..b',
    'a-',
    '-a',
    'exa mple.com/a',
    'example.com:/a',
    'example.com:99999/a',
    '-example.com/a',
    'example..com/a',
    '[::g]/a',
    '[fe802:1]/a',
    '[fe80::1%eth0]/a',
    '127.1/a',
    '1.2.3.256/a',
    '2130706433:80/a',
    'a.0x7f/a',
    'user:secret@example.com/a',
    'https://example.com/a',
    'a\n',
    'ä/b',
    HEX,
    `${'a/'.repeat(127)}abc`,
    'x'.repeat(100_000),
  ]
  for (const text of bad) {
    assert.throws(
      () => parseReference(text),
      error => isCode(error, 'invalid') && (error as Error).message.length < 1000,
      JSON.stringify(text),
    )
  }
})

const alphanumeric = fc.stringMatching(/^[a-z0-9]{1,8}$/)
const component = fc
  .tuple(
    alphanumeric,
    fc.array(fc.tuple(fc.constantFrom('.', '_', '__', '-', '---'), alphanumeric), { maxLength: 3 }),
  )
  .map(([first, rest]) => first + rest.map(([separator, text]) => separator + text).join(''))
const domain = fc
  .tuple(
    fc.constantFrom('docker.io', 'localhost', 'example.com', 'Upper', '10.0.0.1', '[fd00::1]', 'a-b.c'),
    fc.option(fc.integer({ min: 1, max: 65_535 })),
  )
  .map(([host, port]) => (port === null ? host : `${host}:${port}`))
const version = fc.oneof(
  fc.constant(''),
  fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/).map(tag => `:${tag}`),
  fc.stringMatching(/^[0-9a-f]{64}$/).map(hex => `@sha256:${hex}`),
)
const wellFormed = fc
  .tuple(fc.option(domain), fc.array(component, { minLength: 1, maxLength: 3 }), version)
  // Without a registry, a first component with a dot would be one.
  .map(([host, path, end]) => (host === null ? 'library/' : `${host}/`) + path.join('/') + end)

test('every well-formed reference parses, and its canonical and familiar forms mean the same', () => {
  fc.assert(
    fc.property(wellFormed, text => {
      const reference = parseReference(text)
      assert.deepEqual(parseReference(reference.toString()), reference)
      assert.deepEqual(parseReference(reference.familiar), reference)
      assert.notEqual(reference.tag === undefined, reference.digest === undefined)
    }),
  )
})

test('whatever parses is safe in a URL path and stable', () => {
  const nearMiss = fc.tuple(wellFormed, fc.nat(), fc.string({ maxLength: 3 })).map(([text, at, noise]) => {
    const index = at % (text.length + 1)
    return text.slice(0, index) + noise + text.slice(index)
  })
  fc.assert(
    fc.property(fc.oneof(fc.string(), nearMiss), text => {
      try {
        const reference = parseReference(text)
        assert.match(reference.path, /^[a-z0-9._/-]+$/)
        assert.ok(!`/${reference.path}/`.includes('/../'))
        assert.deepEqual(parseReference(reference.toString()), reference)
      } catch (error) {
        assert.ok(isCode(error, 'invalid'), String(error))
      }
    }),
  )
})
