import { createHash } from 'node:crypto'
import { type Digest, digestFromHex, hexOf } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import { type Descriptor, parseAttachments } from './manifest.ts'
import type { AttachedSignature } from './registry.ts'
import { Failure, publicUrl } from './transport/failure.ts'
import type { RetryPolicy } from './transport/retry.ts'
import { withRetries } from './transport/retry.ts'
import type { Session } from './transport/session.ts'

/** cosign's "simple signing" payload. */
const PAYLOAD_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'
const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature'
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'

const MAX_MANIFEST = 4 * 1024 * 1024
/** A digest, a name and a few annotations. */
const MAX_PAYLOAD = 256 * 1024
/** Whoever may push could attach more and more; who signs an image in many ways does it a few times. */
const MAX_SIGNATURES = 50

/**
 * The signatures that cosign's convention attaches to a manifest, from one endpoint: an OCI manifest at the tag
 * `sha256-<hex>.sig`, one layer for each.
 *
 * @throws Failure, `not-found` if there is no such tag
 */
export async function readSignatures(
  session: Session,
  manifest: Digest,
  retry: RetryPolicy,
  signal: AbortSignal,
): Promise<readonly AttachedSignature[]> {
  const path = `manifests/sha256-${hexOf(manifest)}.sig`
  const layers = await withRetries(retry, signal, async () => {
    const response = await session.get('get-signatures', path, { accept: MANIFEST_TYPE }, [200], signal)
    const bytes = await response.read(MAX_MANIFEST)
    try {
      return parseAttachments(bytes).filter(({ mediaType }) => mediaType === PAYLOAD_TYPE)
    } catch (error) {
      throw new Failure('content', `${publicUrl(response.url)}: ${messageOf(error)}`)
    }
  })
  if (layers.length > MAX_SIGNATURES) {
    const what = `${layers.length} signatures; at most ${MAX_SIGNATURES} are looked at`
    throw new Failure('content', `${session.endpoint.host}: ${path} holds ${what}`)
  }
  const signatures: AttachedSignature[] = []
  for (const { annotations, ...layer } of layers) {
    const signature = annotations.get(SIGNATURE_ANNOTATION)
    // What is no signature does not make the others worthless.
    if (signature === undefined) continue
    const payload = await withRetries(retry, signal, () => readPayload(session, layer, signal))
    signatures.push({ payload, signature })
  }
  return signatures
}

async function readPayload(session: Session, layer: Descriptor, signal: AbortSignal): Promise<Buffer> {
  const { digest, size } = layer
  if (size > MAX_PAYLOAD) {
    throw new Failure('content', `${session.endpoint.host}: signature ${digest} has ${size} bytes`)
  }
  const response = await session.get('get-signature', `blobs/${digest}`, {}, [200], signal)
  const bytes = await response.read(MAX_PAYLOAD)
  const found = digestFromHex(createHash('sha256').update(bytes).digest('hex'))
  if (found === digest) return bytes
  const what = `the content received has digest ${found} instead of ${digest}`
  throw new Failure('content', `${publicUrl(response.url)}: ${what}`)
}
