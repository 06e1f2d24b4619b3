import { nowNs } from '../base/clock.ts'
import type { Digest } from '../base/digest.ts'
import { BerthError, isCode, messageOf } from '../base/errors.ts'
import type { Image, Layer } from '../model/image.ts'
import { parseManifest } from '../registry/manifest.ts'
import { parseReference } from '../registry/reference.ts'
import { ArchiveProcess } from '../storage/archive-process.ts'
import type { Difference } from '../storage/verify-layer.ts'
import type { ImageContext } from './image-context.ts'
import type { LayerSource } from './layer-store.ts'
import type { PlannedLayer } from './layers.ts'

export type VerifiedLayer = {
  readonly layer: Layer
  /** Names of the images that stand on it, or their ids. */
  readonly images: readonly string[]
  /**
   * `unrecorded`: an earlier version unpacked it, and there is nothing to compare it with. `failed`: damaged, and it
   * could not be repaired.
   */
  readonly state: 'whole' | 'unrecorded' | 'damaged' | 'repaired' | 'failed'
  readonly differences: readonly Difference[]
  /** How many there are in all; only the first ones are told. */
  readonly count: number
  /** What else there is to say. */
  readonly note: string
}

export type VerifyEvent =
  | { readonly kind: 'progress'; readonly bytes: number; readonly total: number }
  | { readonly kind: 'layer'; readonly result: VerifiedLayer }

/**
 * Compares layers with their records, lowest first, in a process of its own; damaged ones are no longer used. With
 * `repair` they are fetched again from where their images came from, and take the place of the old ones at once;
 * containers that stand on those go on with them.
 *
 * @param references images whose layers are looked at; none: all layers
 * @throws BerthError not-found for an unknown image
 */
export async function* verifyImages(
  context: ImageContext,
  references: readonly Image[],
  repair: boolean,
  signal: AbortSignal,
): AsyncGenerator<VerifyEvent> {
  const layers = layersOf(context, references)
  const release = context.leases.hold(layers.map(({ chainId }) => chainId))
  const total = layers.reduce((sum, layer) => sum + layer.size, 0)
  let before = 0
  try {
    for (const planned of layers) {
      // It may have been replaced since then, and its old directory deleted.
      const layer = context.db.read.layers.get(planned.chainId) ?? planned
      const result = yield* verifyOne(context, layer, repair, signal, bytes => ({
        kind: 'progress',
        bytes: Math.min(before + bytes, before + layer.size),
        total,
      }))
      before += layer.size
      yield { kind: 'layer', result }
      yield { kind: 'progress', bytes: before, total }
    }
  } finally {
    release()
  }
}

function layersOf({ db }: ImageContext, images: readonly Image[]): Layer[] {
  if (images.length === 0) return db.read.layers.committed()
  const chains = images.flatMap(({ topLayer }) =>
    topLayer === undefined ? [] : db.read.layers.chain(topLayer).reverse(),
  )
  return [...new Map(chains.map(layer => [layer.chainId, layer])).values()]
}

async function* verifyOne(
  context: ImageContext,
  layer: Layer,
  repair: boolean,
  signal: AbortSignal,
  progress: (bytes: number) => VerifyEvent,
): AsyncGenerator<VerifyEvent, VerifiedLayer> {
  const found = yield* compare(context, layer, signal, progress)
  const images = context.db.read.layers.imagesOn(layer.chainId).map(id => nameOf(context.index.get(id), id))
  const result = { layer, images, ...found }
  if (found.state !== 'damaged') return { ...result, note: '' }
  const [first] = found.differences
  context.health.report(layer, summaryOf(first, found.count))
  if (!repair) return { ...result, note: '' }
  const containers = context.db.read.layers.containersOn(layer.chainId).length
  try {
    await repairLayer(context, layer, signal)
  } catch (error) {
    signal.throwIfAborted()
    return { ...result, state: 'failed', note: messageOf(error) }
  }
  const note =
    containers === 0 ? '' : `${containers} containers go on with the damaged directory until they are removed`
  return { ...result, state: 'repaired', note }
}

type Found = Pick<VerifiedLayer, 'differences' | 'count'> & {
  readonly state: 'whole' | 'unrecorded' | 'damaged'
}

/** Yields how far it is about ten times a second. */
async function* compare(
  context: ImageContext,
  layer: Layer,
  signal: AbortSignal,
  progress: (bytes: number) => VerifyEvent,
): AsyncGenerator<VerifyEvent, Found> {
  const { snapshots, health } = context
  const glance = snapshots.checkLayer(layer.dir, layer.seal)
  const damage = (what: string): Found => ({ state: 'damaged', differences: [{ path: '', what }], count: 1 })
  if (layer.seal === undefined) {
    return glance === undefined ? { state: 'unrecorded', differences: [], count: 0 } : damage(glance)
  }
  const files = {
    dir: snapshots.layerPath(layer.dir),
    record: snapshots.recordPath(layer.dir),
    recordDigest: layer.seal.record,
    diffId: layer.diffId,
  }
  await using worker = new ArchiveProcess()
  let bytes = 0
  let news = Promise.withResolvers<void>()
  const verifying = worker.verify(files, signal, more => {
    bytes += more
    news.resolve()
  })
  try {
    while ((await Promise.race([verifying, news.promise])) === undefined) {
      news = Promise.withResolvers()
      yield progress(bytes)
    }
    const { differences, count } = await verifying
    if (count > 0) return { state: 'damaged', differences, count }
    if (glance !== undefined) return damage(glance)
    health.verified(layer, nowNs())
    return { state: 'whole', differences: [], count: 0 }
  } catch (error) {
    signal.throwIfAborted()
    // The directory or the record cannot be read as one.
    if (glance !== undefined) return damage(glance)
    if (isCode(error, 'precondition') || isCode(error, 'invalid') || isCode(error, 'internal')) {
      return damage(messageOf(error))
    }
    throw error
  } finally {
    verifying.catch(() => undefined)
  }
}

function summaryOf(first: Difference | undefined, count: number): string {
  if (first === undefined) return 'it differs from its record'
  const path = first.path === '' ? '' : `/${Buffer.from(first.path, 'latin1')} `
  return `${path}${first.what}${count > 1 ? `, and ${count - 1} more differences` : ''}`
}

/** From the first of its images' repositories that has it. */
export async function repairLayer(context: ImageContext, layer: Layer, signal: AbortSignal): Promise<void> {
  const errors: string[] = []
  for (const source of sourcesOf(context, layer)) {
    try {
      await context.layers.fetch(source, signal)
      return
    } catch (error) {
      signal.throwIfAborted()
      errors.push(messageOf(error))
    }
  }
  const how = 'import or pull an image that has it'
  throw new BerthError(
    'unavailable',
    errors.length === 0
      ? `no image with a registry stands on it; ${how}`
      : `it could not be fetched again (${how}): ${errors.join('; ')}`,
  )
}

function* sourcesOf(context: ImageContext, layer: Layer): Generator<LayerSource> {
  const { db, registry, index } = context
  const chain = db.read.layers.chain(layer.chainId).reverse()
  for (const id of db.read.layers.imagesOn(layer.chainId)) {
    const blobs = blobsOf(context, id)
    if (blobs === undefined || blobs.length < chain.length) continue
    const layers: PlannedLayer[] = chain.map(({ chainId, diffId, parent }, at) => ({
      chainId,
      diffId,
      ...(parent === undefined ? {} : { parent }),
      blob: blobs[at]!,
    }))
    for (const name of index.get(id)?.repoDigests ?? []) {
      const reference = parseReference(name)
      yield { reference: name, repository: registry.repository(reference, undefined), layers }
    }
  }
}

/** The layers of an image as its manifest lists them. */
function blobsOf({ db }: ImageContext, imageId: Digest): PlannedLayer['blob'][] | undefined {
  for (const { bytes, mediaType } of db.read.images.manifests(imageId)) {
    const manifest = parseManifest(bytes, mediaType)
    if (manifest.kind === 'image') return [...manifest.layers]
  }
  return undefined
}

/** The name that says most about an image. */
export function nameOf(image: Image | undefined, id: string): string {
  return image?.repoTags[0] ?? image?.repoDigests[0] ?? id
}
