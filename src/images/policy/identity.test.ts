import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseReference } from '../../registry/reference.ts'
import { mismatch, type SignedIdentity } from './identity.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`

/** Which of the signed names are accepted for an image. */
function accepted(identity: SignedIdentity, image: string, signed: readonly string[]): string[] {
  return signed.filter(name => mismatch(identity, parseReference(image), name) === undefined)
}

const SIGNED = [
  'quay.io/team/app:v1',
  'quay.io/team/app:v2',
  'quay.io/team/app',
  `quay.io/team/app@${DIGEST}`,
  'quay.io/team/other:v1',
  'evil.io/team/app:v1',
  'Not A Name',
]

test('which names a signature may be about', () => {
  const cases: ReadonlyArray<[identity: SignedIdentity, image: string, expected: readonly string[]]> = [
    [{ type: 'matchExact' }, 'quay.io/team/app:v1', ['quay.io/team/app:v1']],
    [{ type: 'matchExact' }, `quay.io/team/app@${DIGEST}`, [`quay.io/team/app@${DIGEST}`]],
    [{ type: 'matchRepoDigestOrExact' }, 'quay.io/team/app:v1', ['quay.io/team/app:v1']],
    [
      { type: 'matchRepoDigestOrExact' },
      `quay.io/team/app@${DIGEST}`,
      ['quay.io/team/app:v1', 'quay.io/team/app:v2', `quay.io/team/app@${DIGEST}`],
    ],
    [{ type: 'matchRepository' }, 'quay.io/team/app:v9', SIGNED.slice(0, 4)],
    [
      { type: 'exactReference', dockerReference: 'quay.io/team/other:v1' },
      'x.test/y:z',
      ['quay.io/team/other:v1'],
    ],
    [{ type: 'exactRepository', dockerRepository: 'quay.io/team/app' }, 'x.test/y:z', SIGNED.slice(0, 4)],
    [
      { type: 'remapIdentity', prefix: 'mirror.test/quay', signedPrefix: 'quay.io' },
      'mirror.test/quay/team/app:v2',
      ['quay.io/team/app:v2'],
    ],
    [
      { type: 'remapIdentity', prefix: 'mirror.test/quay', signedPrefix: 'quay.io' },
      `mirror.test/quay/team/app@${DIGEST}`,
      ['quay.io/team/app:v1', 'quay.io/team/app:v2', `quay.io/team/app@${DIGEST}`],
    ],
    // Not a boundary of the name, so nothing is put in its place.
    [
      { type: 'remapIdentity', prefix: 'quay.io/tea', signedPrefix: 'evil.io/tea' },
      'quay.io/team/app:v1',
      ['quay.io/team/app:v1'],
    ],
    [
      { type: 'remapIdentity', prefix: 'quay.io', signedPrefix: 'evil.io' },
      'quay.io/team/app:v1',
      ['evil.io/team/app:v1'],
    ],
    [
      { type: 'remapIdentity', prefix: 'quay.io/team/app:v1', signedPrefix: 'quay.io/team/app:v2' },
      'quay.io/team/app:v1',
      ['quay.io/team/app:v2'],
    ],
    [{ type: 'remapIdentity', prefix: 'quay.io', signedPrefix: 'NO NAME' }, 'quay.io/team/app:v1', []],
  ]
  for (const [identity, image, expected] of cases) {
    assert.deepEqual(accepted(identity, image, SIGNED), expected, `${identity.type} of ${image}`)
  }
})

test('short names in signatures mean Docker Hub, and cosign’s bare repository gets a hint', () => {
  assert.deepEqual(
    accepted({ type: 'matchExact' }, 'busybox:1', ['busybox:1', 'docker.io/library/busybox:1']),
    ['busybox:1', 'docker.io/library/busybox:1'],
  )
  const why = (type: 'matchExact' | 'matchRepository', name: string) =>
    mismatch({ type }, parseReference('quay.io/a:1'), name)
  assert.match(
    why('matchExact', 'quay.io/a') ?? '',
    /names no tag, as cosign writes it: signedIdentity "matchRepos/,
  )
  assert.match(
    why('matchRepository', 'quay.io/b') ?? '',
    /"quay\.io\/b", which is not what matchRepository accepts$/,
  )
})
