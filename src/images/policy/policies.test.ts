import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import {
  makeKey,
  type SignatureOptions,
  type SigningKey,
  signature,
  writePolicy,
} from '../../../test/support/cosign.ts'
import { saying } from '../../../test/support/registry-client.ts'
import { type Digest, digestFromHex } from '../../base/digest.ts'
import { BerthError } from '../../base/errors.ts'
import { parseReference } from '../../registry/reference.ts'
import { Policies, type SignatureReader } from './policies.ts'

const INDEX = digestFromHex('aa'.repeat(32))
const MANIFEST = digestFromHex('bb'.repeat(32))
const accept = [{ type: 'insecureAcceptAnything' }]
const reject = [{ type: 'reject' }]

const nobody: SignatureReader = async () => assert.fail('nobody needs signatures')

function policies(t: TestContext, policy: unknown, keys: Readonly<Record<string, string>> = {}) {
  const { directory, file, write } = writePolicy(policy, keys)
  t.after(() => rmSync(directory, { recursive: true }))
  const found = new Policies({ file, isOptional: false, directory: join(directory, 'namespaces') })
  const check = (name: string, options: { read?: SignatureReader; namespace?: string } = {}) =>
    found.check(parseReference(name), [INDEX, MANIFEST], options.namespace ?? '', options.read ?? nobody)
  return { directory, file, write, check, found }
}

test('the most specific scope decides', async t => {
  const digest = `sha256:${'12'.repeat(32)}`
  const { check, file } = policies(t, {
    default: reject,
    transports: {
      docker: {
        'docker.io': accept,
        'docker.io/team': reject,
        'docker.io/team/app': accept,
        'docker.io/team/app:bad': reject,
        [`docker.io/team/app@${digest}`]: reject,
        'quay.io:8443/a': accept,
        '*.example.com': accept,
        '*.b.example.com': reject,
        'c.b.example.com': accept,
      },
      'docker-daemon': { '': accept },
      atomic: {},
    },
  })
  for (const name of [
    'busybox',
    'team2/x',
    'team/app',
    'team/app:good',
    'quay.io:8443/a/b',
    'a.example.com/x',
    'a.example.com:5000/x',
    'c.b.example.com/x',
  ]) {
    await check(name)
  }
  for (const [name, place] of [
    ['team/x', 'transports.docker["docker.io/team"][0]'],
    ['team/app:bad', 'transports.docker["docker.io/team/app:bad"][0]'],
    [`team/app@${digest}`, `transports.docker["docker.io/team/app@${digest}"][0]`],
    ['quay.io/a/b', 'default[0]'],
    ['example.com/x', 'default[0]'],
    ['a.b.example.com/x', 'transports.docker["*.b.example.com"][0]'],
  ]) {
    await assert.rejects(check(name!), {
      code: 'unknown',
      message: `SignatureValidationFailed: ${parseReference(name!)}: ${file}: ${place} (reject): the policy refuses this image`,
    })
  }
})

test('signedBy and keyless signatures are refused where they are required, and nowhere else', async t => {
  const fulcio = { caPath: '/ca.pem', oidcIssuer: 'https://issuer', subjectEmail: 'a@b' }
  const { check } = policies(t, {
    default: accept,
    transports: {
      docker: {
        'redhat.test': [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: '/key.gpg' }],
        'keyless.test': [{ type: 'sigstoreSigned', fulcio, rekorPublicKeyPath: '/r.pub' }],
        'rekor.test': [{ type: 'sigstoreSigned', keyPath: '/k', rekorPublicKeyPath: '/r.pub' }],
        'base.test': [{ type: 'signedBaseLayer', baseLayerIdentity: { type: 'matchExact' } }],
      },
    },
  })
  await check('quay.io/x')
  const says = (name: string, why: RegExp) => assert.rejects(check(name), saying('unknown', why))
  await says(
    'redhat.test/x',
    /\(signedBy\): GPG signatures \("simple signing"\) are not supported; sign with sigstore/,
  )
  await says(
    'keyless.test/x',
    /\(sigstoreSigned\): "fulcio" is not supported: only signatures by a public key/,
  )
  await says('rekor.test/x', /"rekorPublicKeyPath" is not supported/)
  await says('base.test/x', /\(signedBaseLayer\): it is not supported/)
})

test('a policy of a namespace goes before the one of the node, which must be there if it is named', async t => {
  const { check, file, directory, write, found } = policies(t, { default: accept })
  mkdirSync(join(directory, 'namespaces'))
  const own = join(directory, 'namespaces', 'strict.json')
  writeFileSync(own, JSON.stringify({ default: reject }))
  await check('quay.io/x', { namespace: 'other' })
  await check('quay.io/x', { namespace: '../namespaces/strict' })
  await assert.rejects(
    check('quay.io/x', { namespace: 'strict' }),
    saying('unknown', new RegExp(`${own}: default`)),
  )
  assert.deepEqual([found.ownFile('strict'), found.ownFile('other'), found.ownFile('')], [own, '', ''])
  writeFileSync(own, '{"default": ')
  await assert.rejects(
    check('quay.io/x', { namespace: 'strict' }),
    saying('unknown', /^Signature.*strict\.json: /),
  )
  rmSync(own)
  await check('quay.io/x', { namespace: 'strict' })
  write({ default: reject })
  await assert.rejects(check('quay.io/x'), saying('unknown', /default\[0\] \(reject\)/))
  rmSync(file)
  await assert.rejects(
    check('quay.io/x'),
    saying('unknown', /policy\.json: no such file, and signature_policy names/),
  )
  const optional = new Policies({ file, isOptional: true, directory: '' })
  const both = [INDEX, MANIFEST]
  await optional.check(parseReference('quay.io/x'), both, 'strict', nobody)
  assert.deepEqual(optional.explain('quay.io/x', ''), {
    origin: 'none: every image is accepted',
    requirements: [],
  })
})

/** A policy that wants one of these keys, and signatures made with others perhaps. */
function signed(t: TestContext, requirement: object, keys: Readonly<Record<string, string>> = {}) {
  const fixture = policies(t, { default: reject }, keys)
  const paths = JSON.parse(JSON.stringify(requirement).replaceAll('$DIR', fixture.directory))
  fixture.write({ default: [{ type: 'sigstoreSigned', ...paths }] })
  const made: Array<{ key: SigningKey; of: Digest; options: SignatureOptions }> = []
  const read: SignatureReader = async manifest =>
    made.filter(({ of }) => of === manifest).map(({ key, of, options }) => signature(key, of, options))
  return {
    ...fixture,
    sign: (key: SigningKey, options: SignatureOptions, of = INDEX) => made.push({ key, of, options }),
    check: (name: string) => fixture.check(name, { read }),
  }
}

const NAME = 'quay.io/team/app:v1'

test('signatures by keys of every kind, from files and from the policy itself', async t => {
  for (const kind of ['ec', 'ed25519', 'rsa'] as const) {
    const key = makeKey(kind)
    const data = Buffer.from(key.publicPem).toString('base64')
    const other = Buffer.from(makeKey().publicPem).toString('base64')
    const requirements = [
      { keyPath: '$DIR/key.pub' },
      { keyPaths: ['$DIR/other.pub', '$DIR/key.pub'] },
      { keyData: data },
      { keyDatas: [other, data] },
    ]
    for (const requirement of requirements) {
      const { check, sign } = signed(t, requirement, {
        'key.pub': key.publicPem,
        'other.pub': makeKey().publicPem,
      })
      await assert.rejects(check(NAME), saying('unknown', /there is no signature of sha256:aaaa/))
      sign(makeKey(), { identity: NAME })
      await assert.rejects(
        check(NAME),
        saying('unknown', /none of 1 signatures is accepted: it was not made with/),
      )
      sign(key, { identity: NAME })
      await check(NAME)
    }
  }
})

test('the signature may be of the index or of the image in it, and of nothing else', async t => {
  const key = makeKey()
  const index = signed(t, { keyPath: '$DIR/key.pub' }, { 'key.pub': key.publicPem })
  index.sign(key, { identity: NAME }, MANIFEST)
  await index.check(NAME)
  const moved = signed(t, { keyPath: '$DIR/key.pub' }, { 'key.pub': key.publicPem })
  moved.sign(key, { identity: NAME, digest: MANIFEST })
  await assert.rejects(
    moved.check(NAME),
    saying('unknown', /it is for "sha256:bbbb.*" instead of sha256:aaaa/),
  )
})

test('what is no signature is never accepted, and one that is wrong does no harm to others', async t => {
  const key = makeKey()
  const critical = (members: object) =>
    Buffer.from(
      JSON.stringify({
        critical: {
          type: 'cosign container image signature',
          image: { 'docker-manifest-digest': INDEX },
          identity: { 'docker-reference': NAME },
          ...members,
        },
        optional: { creator: 'x', anything: [1] },
      }),
    )
  const cases: ReadonlyArray<[options: Partial<SignatureOptions>, why: RegExp]> = [
    [{ signature: '' }, /the signature is not base64/],
    [{ signature: 'ä' }, /not base64/],
    [{ signature: 'AAAA' }, /not made with the key/],
    [{ payload: critical({ type: 'atomic container signature' }) }, /payload is of type "atomic/],
    [{ payload: critical({ more: 1 }) }, /critical must have "type", "image", "identity" and no more/],
    [{ payload: critical({ image: { 'docker-manifest-digest': 7 } }) }, /names no digest/],
    [{ payload: critical({ identity: { 'docker-reference': 'a'.repeat(10_000) } }) }, /names no digest/],
    [{ payload: critical({ image: {} }) }, /image must have "docker-manifest-digest"/],
    [{ payload: critical({ identity: { 'docker-reference': 'A B' } }) }, /"A B", which is no image name/],
    [{ payload: Buffer.from('no JSON') }, /payload is not valid JSON/],
    [{ payload: Buffer.from('[]') }, /payload must have/],
    [{ payload: Buffer.from('{"critical":{},"critical":{},"optional":null}') }, /occurs twice/],
  ]
  for (const [options, why] of cases) {
    const { check, sign } = signed(t, { keyPath: '$DIR/key.pub' }, { 'key.pub': key.publicPem })
    sign(key, { identity: NAME, ...options })
    await assert.rejects(check(NAME), saying('unknown', why))
    sign(key, { identity: NAME, payload: critical({}) })
    await check(NAME)
  }
})

test('keys that cannot be used refuse, naming their file', async t => {
  const cases: ReadonlyArray<[pem: string, why: RegExp]> = [
    ['nothing', /key\.pub: expected a PEM public key/],
    [makeKey().privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), /expected a PEM public key/],
    ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n', /key\.pub: not a usable public key/],
    [makeKey('weak').publicPem, /an RSA key of 1024 bits; expected 2048 at least/],
    [makeKey('x25519').publicPem, /a key of type x25519; expected ECDSA, Ed25519 or RSA/],
  ]
  for (const [pem, why] of cases) {
    const { check } = signed(t, { keyPath: '$DIR/key.pub' }, { 'key.pub': pem })
    await assert.rejects(check(NAME), saying('unknown', why))
  }
  await assert.rejects(
    signed(t, { keyPath: '$DIR/absent.pub' }).check(NAME),
    saying('unknown', /absent\.pub: no such/),
  )
})

test('signatures that cannot be read refuse; a cancelled pull stays cancelled', async t => {
  const { check } = policies(t, { default: [{ type: 'sigstoreSigned', keyPath: '/k' }] })
  const key = makeKey()
  const { file } = signed(t, { keyPath: '$DIR/key.pub' }, { 'key.pub': key.publicPem })
  await assert.rejects(check(NAME), saying('unknown', /\/k: no such file/))
  const found = new Policies({ file, isOptional: false, directory: '' })
  const failing = (error: BerthError) =>
    found.check(parseReference(NAME), [INDEX, INDEX], '', async () => {
      throw error
    })
  await assert.rejects(
    failing(new BerthError('unknown', 'RegistryUnavailable: x')),
    saying('unknown', /^SignatureValidationFailed: .*\(sigstoreSigned\): RegistryUnavailable: x/),
  )
  await assert.rejects(failing(new BerthError('cancelled', 'given up')), saying('cancelled', /given up/))
})

test('every requirement of a list must be met', async t => {
  const [first, second] = [makeKey(), makeKey()]
  const { check, sign, write, directory } = signed(
    t,
    { keyPath: '$DIR/a.pub' },
    { 'a.pub': first.publicPem, 'b.pub': second.publicPem },
  )
  const by = (name: string) => ({ type: 'sigstoreSigned', keyPath: join(directory, name) })
  write({ default: [by('a.pub'), by('b.pub')] })
  sign(first, { identity: NAME })
  await assert.rejects(check(NAME), saying('unknown', /default\[1\] \(sigstoreSigned\)/))
  sign(second, { identity: NAME })
  await check(NAME)
})
