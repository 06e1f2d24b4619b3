import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { verifySignature } from '../../src/images/policy/verify-signature.ts'
import { makeKey, signature } from '../support/cosign.ts'
import { type FuzzTarget, mutated } from './target.ts'

const key = makeKey('ed25519')
const keys = [createPublicKey(key.publicPem)]
const DIGEST = `sha256:${'ab'.repeat(32)}`
const { payload } = signature(key, DIGEST, { identity: 'quay.io/a:1' })

/** The payload of one who may sign, so that it is the document that is tried and not the signature. */
export const target: FuzzTarget = {
  inputs: mutated([payload], ['"critical":', '"identity":', '{}', 'null', '[]', '__proto__', '"type":"x",']),
  run(input) {
    const claim = verifySignature(signature(key, DIGEST, { identity: '', payload: input }), keys)
    assert.equal(typeof claim.digest, 'string')
    assert.equal(typeof claim.reference, 'string')
    const other = {
      payload: Buffer.concat([input, Buffer.from(' ')]),
      signature: signature(key, DIGEST, { identity: '', payload: input }).signature,
    }
    assert.throws(() => verifySignature(other, keys), /not made with the key/)
  },
  runs: 1500,
}
