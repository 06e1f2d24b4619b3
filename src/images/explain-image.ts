import { notFound } from '../base/errors.ts'
import type { Image, Layer } from '../model/image.ts'
import type { ImageContext } from './image-context.ts'
import { imageDamage } from './layer-health.ts'

/** What keeps an object, and what it takes. */
export type Explanation = {
  readonly kind: 'image' | 'layer' | 'manifest'
  readonly id: string
  /** Bytes on disk. */
  readonly size: number
  /** Bytes that are nobody else's, so that they would be free. */
  readonly alone: number
  /** Empty: the next collection deletes it. */
  readonly holders: readonly Holder[]
  /** What is wrong with it on disk; '': nothing that is known. */
  readonly damage: string
}

export type Holder = {
  readonly kind: 'name' | 'pin' | 'container' | 'image' | 'layer' | 'pull'
  /** What people call it. */
  readonly name: string
}

/**
 * What is wrong with an object is what was found before, or what a glance at its directories tells now. Nothing is
 * written, so that a full disk can be explained too: whoever uses the image finds out the same.
 *
 * @param reference an image in any form, or the digest of a layer (diff id, chain id, blob) or of a manifest
 * @throws BerthError not-found
 */
export function explainImage(context: ImageContext, reference: string): Explanation {
  const image = context.find(reference)
  if (image !== undefined) return explainOne(context, image)
  const layer = context.db.read.layers
    .committed()
    .find(({ chainId, diffId, blobDigest }) =>
      [chainId, diffId, blobDigest].some(id => matches(id, reference)),
    )
  if (layer !== undefined) return explainLayer(context, layer)
  const owner = context.index
    .all()
    .find(({ id }) => context.db.read.images.manifests(id).some(({ digest }) => matches(digest, reference)))
  if (owner === undefined) throw notFound('image, layer or manifest', reference)
  return {
    kind: 'manifest',
    id: reference,
    size: 0,
    alone: 0,
    holders: [{ kind: 'image', name: nameOf(owner) }],
    damage: '',
  }
}

// As short as people copy it, and long enough to mean one.
const SHORTEST = 12

function matches(digest: string, reference: string): boolean {
  const hex = reference.replace(/^sha256:/, '')
  return hex.length >= SHORTEST && digest.slice('sha256:'.length).startsWith(hex)
}

function explainOne(context: ImageContext, image: Image): Explanation {
  const { db, leases } = context
  const chain = image.topLayer === undefined ? [] : db.read.layers.chain(image.topLayer)
  const isAlone = ({ chainId }: Layer) =>
    db.read.layers.imagesOn(chainId).length === 1 &&
    db.read.layers.containersOn(chainId).length === 0 &&
    !leases.covers(chainId)
  const holders: Holder[] = [
    ...[...image.repoTags, ...image.repoDigests].map(name => ({ kind: 'name' as const, name })),
    ...(image.repoTags.length + image.repoDigests.length === 0
      ? [{ kind: 'name' as const, name: image.id }]
      : []),
    ...(image.pinned ? [{ kind: 'pin' as const, name: 'pinned_images' }] : []),
    ...containers(db.read.images.describeContainers(db.read.images.containersOf(image.id))),
  ]
  return {
    kind: 'image',
    id: image.id,
    size: sum(chain),
    alone: sum(chain.filter(isAlone)),
    holders,
    damage: damageOf(context, chain),
  }
}

/** Of an image: what is wrong with the topmost layer that is damaged. */
function damageOf({ layers }: ImageContext, chain: readonly Layer[]): string {
  for (const layer of chain) {
    const damage = layers.damageOf(layer)
    if (damage !== undefined) return imageDamage(layer, damage)
  }
  return ''
}

function explainLayer(context: ImageContext, layer: Layer): Explanation {
  const { db, index, leases, layers } = context
  const { chainId } = layer
  const images = db.read.layers.imagesOn(chainId).flatMap(id => index.get(id) ?? [])
  const held = containers(db.read.images.describeContainers(db.read.layers.containersOn(chainId)))
  const above = db.read.layers.committed().filter(({ parent }) => parent === chainId)
  const holders: Holder[] = [
    ...images.map(image => ({ kind: 'image' as const, name: nameOf(image) })),
    ...held,
    ...above.map(({ diffId }) => ({ kind: 'layer' as const, name: diffId })),
    ...(leases.covers(chainId)
      ? [{ kind: 'pull' as const, name: 'a pull that runs or is expected again' }]
      : []),
  ]
  return {
    kind: 'layer',
    id: layer.diffId,
    size: layer.size,
    alone: images.length + held.length <= 1 ? layer.size : 0,
    holders,
    damage: layers.damageOf(layer) ?? '',
  }
}

function containers(described: readonly string[]): Holder[] {
  return described.map(name => ({ kind: 'container', name }))
}

function nameOf(image: Image): string {
  return image.repoTags[0] ?? image.repoDigests[0] ?? image.id
}

function sum(layers: readonly Layer[]): number {
  return layers.reduce((bytes, { size }) => bytes + size, 0)
}
