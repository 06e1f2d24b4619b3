import type { Digest } from '../../base/digest.ts'
import { BerthError, isCode, messageOf } from '../../base/errors.ts'
import type { Image } from '../../model/image.ts'
import type { Reference } from '../../registry/reference.ts'
import type { Registry, Repository } from '../../registry/registry.ts'
import type { Database } from '../../state/database.ts'
import { type AcceptedSignature, type Policies, refused, type SignatureReader } from './policies.ts'

/** A registry that is away must not hold up a container for long: kubelet tries again. */
const FETCH_LIMIT_MS = 20_000

export type AdmissionContext = {
  readonly db: Database
  readonly registry: Registry
  readonly policies: Policies
}

/** The signatures that a registry has, with an error that says what they are. */
export function attachedIn(repository: Repository, signal: AbortSignal): SignatureReader {
  return async manifest => {
    try {
      return await repository.signatures(manifest, signal)
    } catch (error) {
      if (isCode(error, 'cancelled')) throw error
      throw new BerthError('unknown', `its signatures cannot be read: ${messageOf(error)}`, error)
    }
  }
}

/** Of the signatures that an image passed with, those that are not kept yet. */
export function freshSignatures(
  db: Database,
  id: Digest,
  accepted: readonly AcceptedSignature[],
): readonly AcceptedSignature[] {
  const known = db.read.images.signatures(id)
  return accepted.filter(
    each => !known.some(row => row.manifest === each.manifest && row.signature === each.signature),
  )
}

/**
 * Lets a container stand on an image that is here, or not: it may have been pulled for another namespace, by another
 * policy, or not at all. The signatures that were accepted then are looked at first, the registry's after them.
 *
 * @param name as the pod names the image; an id means whatever the image is called here
 * @throws BerthError unknown, starting with `SignatureValidationFailed: `
 */
export async function admitImage(
  context: AdmissionContext,
  image: Image,
  name: string,
  namespace: string,
): Promise<void> {
  const { db, policies } = context
  if (policies.acceptsAll(namespace)) return
  const references = referencesOf(context.registry, image, name)
  const kept = db.read.images.signatures(image.id)
  const keptFor: SignatureReader = async manifest => kept.filter(row => row.manifest === manifest)
  let failure: unknown = refused(name || image.id, 'the image has no name here that a policy could be for')
  for (const reference of references) {
    const digests = digestsOf(db, image, reference)
    try {
      await policies.check(reference, digests, namespace, keptFor)
      return
    } catch (error) {
      failure = error
    }
  }
  for (const reference of references) {
    try {
      return await admitAnew(context, image, reference, namespace)
    } catch (error) {
      // What was found here says more than that the registry took too long.
      if (!isCode(error, 'cancelled')) failure = error
    }
  }
  throw failure
}

async function admitAnew(
  { db, registry, policies }: AdmissionContext,
  image: Image,
  reference: Reference,
  namespace: string,
): Promise<void> {
  const signal = AbortSignal.timeout(FETCH_LIMIT_MS)
  // Asked for only if a rule wants signatures: a rule that refuses does so without the registry.
  const read: SignatureReader = manifest =>
    attachedIn(registry.repository(reference, undefined), signal)(manifest)
  const accepted = await policies.check(reference, digestsOf(db, image, reference), namespace, read)
  const fresh = freshSignatures(db, image.id, accepted)
  if (fresh.length === 0) return
  // So that the next container can be made of it while the registry is away.
  db.transact('image signatures', tx => {
    for (const signature of fresh) tx.images.insertSignature(image.id, signature)
  })
}

function referencesOf(registry: Registry, image: Image, name: string): readonly Reference[] {
  // As `ImageService.find` takes an id: `sha256:` and its beginning would be a name of Docker Hub, too.
  const isId = image.id.startsWith(name.startsWith('sha256:') ? name : `sha256:${name}`)
  const names = isId ? [...image.repoTags, ...image.repoDigests] : [name]
  const found = names.flatMap(each => registry.candidates(each))
  const here = new Set([...image.repoTags, ...image.repoDigests])
  const known = found.filter(reference => here.has(`${reference}`))
  return known.length > 0 ? known : found
}

/** Of the manifest, and of what led to it in the reference's repository. */
function digestsOf(db: Database, image: Image, { name }: Reference): readonly Digest[] {
  const resolved = image.repoDigests.filter(each => each.startsWith(`${name}@`))
  const indexes = resolved.map(each => each.slice(name.length + 1) as Digest)
  return [...indexes, ...db.read.images.manifests(image.id).map(({ digest }) => digest)]
}
