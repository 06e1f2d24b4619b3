import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { blobOf } from './layers.ts'
import type { TestRegistry } from './registry.ts'

export type SigningKey = { readonly privateKey: KeyObject; readonly publicPem: string }

export type SignatureOptions = {
  /** The name in the payload. */
  readonly identity: string
  /** The digest in the payload; default: the one that is signed. */
  readonly digest?: string
  /** Instead of what the options above make. */
  readonly payload?: Buffer
  /** Instead of the signature in base64. */
  readonly signature?: string
}

const KINDS = {
  ec: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ed25519: () => generateKeyPairSync('ed25519'),
  rsa: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  weak: () => generateKeyPairSync('rsa', { modulusLength: 1024 }),
  x25519: () => generateKeyPairSync('x25519'),
}

export function makeKey(kind: keyof typeof KINDS = 'ec'): SigningKey {
  const { privateKey, publicKey } = KINDS[kind]()
  return { privateKey, publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
}

/** A signature as cosign makes it: of a payload that names the digest and the image. */
export function signature(
  key: SigningKey,
  signed: string,
  options: SignatureOptions,
): { readonly payload: Buffer; readonly signature: string } {
  const { identity, digest = signed } = options
  const critical = {
    identity: { 'docker-reference': identity },
    image: { 'docker-manifest-digest': digest },
    type: 'cosign container image signature',
  }
  const payload = options.payload ?? Buffer.from(JSON.stringify({ critical, optional: null }))
  const hash = key.privateKey.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  return { payload, signature: options.signature ?? sign(hash, payload, key.privateKey).toString('base64') }
}

/** Attaches signatures to a manifest in a repository, in place of those that were there. */
export function attach(
  registry: TestRegistry,
  repository: string,
  signed: string,
  signatures: ReadonlyArray<ReturnType<typeof signature>>,
): void {
  const config = blobOf(Buffer.from('{}'))
  const layers = signatures.map(({ payload, signature: text }) => {
    const blob = blobOf(payload)
    registry.addBlob(repository, blob)
    return {
      mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
      digest: blob.digest,
      size: blob.size,
      annotations: { 'dev.cosignproject.cosign/signature': text },
    }
  })
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const descriptor = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: config.digest,
    size: config.size,
  }
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config: descriptor, layers }))
  const { digest } = blobOf(manifest)
  const image = { manifest, mediaType, digest, id: config.digest, config, layers: [], children: [] }
  registry.push(image, repository, `${signed.replace(':', '-')}.sig`)
}

/** A policy.json, and the keys that it names, in a directory that the caller removes. */
export function writePolicy(policy: unknown, keys: Readonly<Record<string, string>> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'berth-policy-'))
  for (const [name, pem] of Object.entries(keys)) writeFileSync(join(directory, name), pem)
  const file = join(directory, 'policy.json')
  const write = (content: unknown) =>
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  write(policy)
  return { directory, file, write }
}
