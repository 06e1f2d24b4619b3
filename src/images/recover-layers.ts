import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'
import { strayLayerDirs } from './layer-dirs.ts'
import type { LayerDisposal } from './layer-disposal.ts'
import type { LayerHealth } from './layer-health.ts'
import type { LayerSnapshots } from './layers.ts'

type Store = {
  readonly db: Database
  readonly snapshots: LayerSnapshots
  readonly disposal: LayerDisposal
  readonly log: Log
}

/**
 * Makes rows and directories agree after an end at any instruction, before anything is pulled: intents and directories
 * that no row names go. A row keeps its place when its directory is lost or another's; the next pull fetches it again.
 */
export async function recoverLayers(
  { db, snapshots, disposal, log }: Store,
  health: LayerHealth,
): Promise<void> {
  const intents = db.read.layers.extracting()
  if (intents.length > 0) {
    db.transact('layers given up', tx => {
      // A child's number is above its parent's.
      for (const layer of intents.toSorted((a, b) => Number(b.dir) - Number(a.dir))) {
        tx.layers.delete(layer.chainId)
      }
    })
  }
  const strays = strayLayerDirs(db, snapshots)
  for (const dir of strays) disposal.discardLayer(dir)
  await snapshots.sweep()
  if (intents.length + strays.length > 0) {
    log.info({ intents: intents.length, directories: strays.length }, 'unfinished layers removed')
  }
  for (const layer of db.read.layers.committed()) {
    const damage = snapshots.checkLayer(layer.dir, layer.seal)
    if (damage !== undefined) health.report(layer, damage)
  }
}
