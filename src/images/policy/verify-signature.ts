import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { messageOf } from '../../base/errors.ts'
import { parseStrictJson } from '../../base/strict-json.ts'
import { readText } from '../../registry/read-text.ts'
import type { AttachedSignature } from '../../registry/registry.ts'
import type { KeySource } from './policy-file.ts'

/** What cosign signs: the digest of a manifest, and the name under which it was signed. */
export type SignedClaim = { readonly digest: string; readonly reference: string }

const PAYLOAD_TYPE = 'cosign container image signature'
/** More than the longest reference. */
const MAX_NAME = 512
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/
/** NIST SP 800-57: below it a key is not one any more. */
const MIN_RSA_BITS = 2048

type Json = Readonly<Record<string, unknown>>

/** @throws Error naming the file, or saying that it is the policy's own data */
export function loadKey(source: KeySource): KeyObject {
  const name = 'path' in source ? source.path : 'the key in the policy'
  const pem = 'path' in source ? readText(source.path) : source.pem
  if (pem === undefined) throw new Error(`${name}: no such file`)
  // createPublicKey would also take a private key or a certificate, which is not what the policy means.
  if (!/-----BEGIN (?:RSA )?PUBLIC KEY-----/.test(pem)) throw new Error(`${name}: expected a PEM public key`)
  let key: KeyObject
  try {
    key = createPublicKey(pem)
  } catch (error) {
    throw new Error(`${name}: not a usable public key: ${messageOf(error)}`, { cause: error })
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'ec' || type === 'ed25519') return key
  if (type !== 'rsa') throw new Error(`${name}: a key of type ${type}; expected ECDSA, Ed25519 or RSA`)
  if ((details?.modulusLength ?? 0) >= MIN_RSA_BITS) return key
  throw new Error(`${name}: an RSA key of ${details?.modulusLength} bits; expected ${MIN_RSA_BITS} at least`)
}

/**
 * What a signature says, if one of the keys made it. Nothing of the payload is looked at before.
 *
 * @throws Error saying why it is none
 */
export function verifySignature(
  { payload, signature }: AttachedSignature,
  keys: readonly KeyObject[],
): SignedClaim {
  if (!BASE64.test(signature)) throw new Error('the signature is not base64')
  const bytes = Buffer.from(signature, 'base64')
  if (!keys.some(key => isSignedBy(key, payload, bytes))) {
    throw new Error(
      keys.length === 1 ? 'it was not made with the key' : 'it was not made with any of the keys',
    )
  }
  return readPayload(payload)
}

function isSignedBy(key: KeyObject, payload: Buffer, signature: Buffer): boolean {
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  try {
    return verify(hash, payload, key, signature)
  } catch {
    // What is no signature at all.
    return false
  }
}

function readPayload(payload: Buffer): SignedClaim {
  let document: unknown
  try {
    document = parseStrictJson(payload)
  } catch (error) {
    throw new Error(`its payload is not valid JSON: ${messageOf(error)}`)
  }
  const { critical, optional } = exactly(document, 'payload', ['critical', 'optional'])
  if (optional !== null && (typeof optional !== 'object' || Array.isArray(optional))) {
    throw new Error('its payload.optional is no object')
  }
  const { type, image, identity } = exactly(critical, 'critical', ['type', 'image', 'identity'])
  if (type !== PAYLOAD_TYPE) throw new Error(`its payload is of type ${JSON.stringify(type)?.slice(0, 100)}`)
  const digest = exactly(image, 'image', ['docker-manifest-digest'])['docker-manifest-digest']
  const reference = exactly(identity, 'identity', ['docker-reference'])['docker-reference']
  // Both may end up in a message.
  const isShort = (value: unknown): value is string => typeof value === 'string' && value.length <= MAX_NAME
  if (!isShort(digest) || !isShort(reference)) throw new Error('its payload names no digest and no image')
  return { digest, reference }
}

/** Members that were added could mean a restriction that nobody here knows of. */
function exactly(value: unknown, name: string, members: readonly string[]): Json {
  const found = typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.keys(value) : []
  if (found.length === members.length && members.every(member => found.includes(member))) return value as Json
  throw new Error(
    `its payload's ${name} must have ${members.map(member => `"${member}"`).join(', ')} and no more`,
  )
}
