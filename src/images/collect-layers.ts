import type { Digest } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import type { Layer } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'
import type { LayerLeases } from './layer-leases.ts'
import type { LayerSnapshots } from './layers.ts'

type Store = { readonly db: Database; readonly snapshots: LayerSnapshots; readonly log: Log }

/**
 * Deletes the layers that nothing stands on. Rows first: a directory without a row is swept at the next start, and its
 * number is never given again. One synchronous step, so no pull or container can come between.
 */
export function collectLayers({ db, snapshots, log }: Store, leases: LayerLeases): void {
  const doomed = withoutLeased(db.read.layers.unused(), leases)
  const retired = db.read.layers.retiredUnheld()
  if (doomed.length + retired.length === 0) return
  db.transact('layers deleted', tx => {
    for (const layer of doomed) tx.layers.delete(layer.chainId)
    for (const dir of retired) tx.layers.forgetRetired(dir)
  })
  for (const dir of [...doomed.map(layer => layer.dir), ...retired]) {
    try {
      snapshots.discard(snapshots.layerPath(dir))
    } catch (error) {
      log.warn({ directory: dir, error: messageOf(error) }, 'a deleted layer is left on disk')
    }
  }
  log.info({ layers: doomed.length, bytes: sum(doomed) }, 'unused layers deleted')
}

/** @param unused children before their parents, as in what is returned */
function withoutLeased(unused: readonly Layer[], leases: LayerLeases): Layer[] {
  const needed = new Set<Digest>()
  return unused.filter(layer => {
    if (!needed.has(layer.chainId) && !leases.covers(layer.chainId)) return true
    if (layer.parent !== undefined) needed.add(layer.parent)
    return false
  })
}

function sum(layers: readonly Layer[]): number {
  return layers.reduce((bytes, layer) => bytes + layer.size, 0)
}
