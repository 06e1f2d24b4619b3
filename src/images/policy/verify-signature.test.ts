import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadKey, verifySignature } from './verify-signature.ts'

type Recorded = {
  readonly kind: string
  readonly publicKey: string
  /** base64 */
  readonly payload: string
  readonly signature: string
}

/** Made by the Go module github.com/sigstore/sigstore 1.9.5, which is what cosign signs with. */
const recorded: readonly Recorded[] = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../../test/fixtures/sigstore.json'), 'utf8'),
)

test('signatures that sigstore’s own library made, with keys of every kind', () => {
  assert.equal(recorded.length, 8)
  for (const { kind, publicKey, payload, signature } of recorded) {
    const attached = { payload: Buffer.from(payload, 'base64'), signature }
    const keys = [loadKey({ pem: publicKey })]
    assert.deepEqual(
      verifySignature(attached, keys),
      { digest: `sha256:${'0123456789abcdef'.repeat(4)}`, reference: 'registry.example.com/team/app' },
      kind,
    )
    const changed = Buffer.from(attached.payload)
    changed[changed.indexOf('team')]! ^= 1
    assert.throws(() => verifySignature({ payload: changed, signature }, keys), /not made with the key/, kind)
    const others = recorded
      .filter(({ publicKey: other }) => other !== publicKey)
      .map(other => loadKey({ pem: other.publicKey }))
    assert.throws(() => verifySignature(attached, others), /not made with any of the keys/, kind)
  }
})
