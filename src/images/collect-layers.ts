import type { Digest } from '../base/digest.ts'
import type { Image, Layer } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'
import type { LayerDisposal } from './layer-disposal.ts'
import type { LayerLeases } from './layer-leases.ts'

type Store = { readonly db: Database; readonly disposal: LayerDisposal; readonly log: Log }

/** What no image and no container stands on. */
export type Garbage = {
  /** To be deleted, children before their parents. */
  readonly layers: readonly Layer[]
  /** Left for now: a pull is at work on them, or is expected to be tried again. */
  readonly leased: readonly Layer[]
  /** Directories whose layers were replaced, and which no container has below it any more. */
  readonly retired: readonly string[]
  /** Intents that a failed pull could not take back, as on a full disk; children before their parents. */
  readonly abandoned: readonly Layer[]
}

/** @param without images as if they were not there; what their deletion lets go of is kept for nobody's next try */
export function findGarbage(db: Database, leases: LayerLeases, without: readonly Image[] = []): Garbage {
  const chains = without.flatMap(({ topLayer }) =>
    topLayer === undefined ? [] : db.read.layers.chain(topLayer),
  )
  const given = new Set(chains.map(({ chainId }) => chainId))
  const ids = without.map(({ id }) => id)
  const needed = new Set<Digest>()
  const layers: Layer[] = []
  const leased: Layer[] = []
  for (const layer of db.read.layers.unused(ids)) {
    const { chainId } = layer
    const isWanted = given.has(chainId) ? leases.isHeld(chainId) : leases.covers(chainId)
    const isLeased = needed.has(chainId) || isWanted
    if (isLeased && layer.parent !== undefined) needed.add(layer.parent)
    ;(isLeased ? leased : layers).push(layer)
  }
  return { layers, leased, retired: db.read.layers.retiredUnheld(), abandoned: abandonedIntents(db, leases) }
}

/** Whoever makes a layer holds it and all those below it: an intent that nobody holds is nobody's. */
function abandonedIntents(db: Database, leases: LayerLeases): Layer[] {
  const abandoned = db.read.layers.extracting().filter(({ chainId }) => !leases.isHeld(chainId))
  return abandoned.toSorted((a, b) => Number(b.dir) - Number(a.dir)) // a child's number is above its parent's
}

/**
 * Deletes the layers that nothing stands on once these images are gone, and the images' rows with theirs: a daemon that
 * dies in between would take them for those of a broken pull. Abandoned intents go first, as they stand on layers too.
 * Rows before directories: one without a row is swept at the next start, and its number is never given again. One
 * synchronous step, so no pull or container can come between.
 */
export function collectLayers(
  { db, disposal, log }: Store,
  leases: LayerLeases,
  images: readonly Image[] = [],
): Garbage {
  const garbage = findGarbage(db, leases, images)
  const { layers, retired, abandoned } = garbage
  const gone = [...abandoned, ...layers]
  if (images.length + gone.length + retired.length === 0) return garbage
  db.transact(images.length > 0 ? 'images deleted' : 'layers deleted', tx => {
    for (const image of images) tx.images.delete(image.id)
    for (const layer of gone) tx.layers.delete(layer.chainId)
    for (const dir of retired) tx.layers.forgetRetired(dir)
  })
  for (const dir of [...gone.map(layer => layer.dir), ...retired]) disposal.discardLayer(dir)
  if (gone.length + retired.length === 0) return garbage
  const counts = { layers: layers.length, replaced: retired.length, unfinished: abandoned.length }
  log.info({ ...counts, bytes: layers.reduce((sum, { size }) => sum + size, 0) }, 'unused layers deleted')
  return garbage
}
