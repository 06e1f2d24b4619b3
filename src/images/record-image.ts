import { nowNs } from '../base/clock.ts'
import type { Digest } from '../base/digest.ts'
import type { Image, ImageConfig } from '../model/image.ts'
import type { Descriptor } from '../registry/manifest.ts'
import type { Database } from '../state/database.ts'
import type { ManifestRow } from '../state/images.ts'
import { chainIds } from './chain-ids.ts'
import type { ImageIndex, ImageName } from './image-index.ts'
import type { PlannedLayer } from './layers.ts'
import { freshSignatures } from './policy/admit-image.ts'
import type { AcceptedSignature } from './policy/policies.ts'

/** The layers of an image, lowest first. */
export function planOf(config: ImageConfig, blobs: readonly Descriptor[]): PlannedLayer[] {
  const ids = chainIds(config.diffIds)
  return config.diffIds.map((diffId, index) => {
    const parent = ids[index - 1]
    return {
      chainId: ids[index]!,
      diffId,
      ...(parent === undefined ? {} : { parent }),
      blob: blobs[index]!,
    }
  })
}

export type NewImage = {
  readonly id: Digest
  readonly names: readonly ImageName[]
  readonly config: ImageConfig
  readonly rawConfig: Buffer
  readonly manifest: ManifestRow
  readonly layers: readonly Descriptor[]
  /** With which a policy let it pass. */
  readonly signatures: readonly AcceptedSignature[]
  /** Chain id. */
  readonly topLayer: Digest | undefined
}

/**
 * Image, names, manifest and signatures, in one transaction that makes it visible: kubelet never pulls again what it has
 * seen, and without its signatures no container could be made of it. Nothing is written when all of it is known.
 */
export function recordImage(
  { db, index }: { readonly db: Database; readonly index: ImageIndex },
  { id, names, config, rawConfig, manifest, layers, signatures, topLayer }: NewImage,
): Image {
  const known = index.get(id)
  const isNamed = known !== undefined && names.every(({ name }) => index.named(name) === known)
  const fresh = freshSignatures(db, id, signatures)
  if (isNamed && fresh.length === 0) return known
  const size = layers.reduce((sum, layer) => sum + layer.size, rawConfig.length)
  const row = { id, repoTags: [], repoDigests: [], size, config, topLayer, createdAt: nowNs() }
  db.transact('image', tx => {
    tx.images.insert(row, rawConfig)
    for (const { name, kind } of names) tx.images.setName(name, kind, id)
    tx.images.insertManifest(id, manifest)
    for (const signature of fresh) tx.images.insertSignature(id, signature)
  })
  return index.put(row, names)
}
