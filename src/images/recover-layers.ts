import type { Digest } from '../base/digest.ts'
import type { Image } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'
import type { LayerSnapshots } from './layers.ts'

type Store = { readonly db: Database; readonly snapshots: LayerSnapshots; readonly log: Log }

/**
 * Makes rows and directories agree after an end at any instruction, before anything is pulled: intents and directories
 * without a committed row go. A row keeps its place when its directory is lost; the next pull fetches it again.
 *
 * @returns the images that stand on lost layers, to be forgotten so that they are pulled again
 */
export async function recoverLayers(
  { db, snapshots, log }: Store,
  images: readonly Image[],
): Promise<Image[]> {
  const intents = db.read.layers.extracting()
  if (intents.length > 0) {
    db.transact('layers given up', tx => {
      // A child's number is above its parent's.
      for (const layer of intents.toSorted((a, b) => Number(b.dir) - Number(a.dir))) {
        tx.layers.delete(layer.chainId)
      }
    })
  }
  const committed = db.read.layers.committed()
  const known = new Set(committed.map(layer => layer.dir))
  const present = new Set(snapshots.listLayerDirs())
  const strays = [...present].filter(dir => !known.has(dir))
  for (const dir of strays) snapshots.discard(snapshots.layerPath(dir))
  await snapshots.sweep()
  if (intents.length + strays.length > 0) {
    log.info({ intents: intents.length, directories: strays.length }, 'unfinished layers removed')
  }

  const lost = committed.filter(layer => !present.has(layer.dir))
  if (lost.length === 0) return []
  for (const layer of lost) {
    log.warn({ layer: layer.chainId, path: snapshots.layerPath(layer.dir) }, 'a layer is missing on disk')
  }
  const ids = new Set<Digest>(lost.map(layer => layer.chainId))
  return images.filter(
    ({ topLayer }) =>
      topLayer !== undefined && db.read.layers.chain(topLayer).some(layer => ids.has(layer.chainId)),
  )
}
