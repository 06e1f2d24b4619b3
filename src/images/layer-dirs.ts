import type { Database } from '../state/database.ts'
import type { LayerSnapshots } from './layers.ts'

/** Directories that no row names. */
export function strayLayerDirs(db: Database, snapshots: Pick<LayerSnapshots, 'listLayerDirs'>): string[] {
  const named = namedDirs(db)
  return snapshots.listLayerDirs().filter(dir => !named.has(dir))
}

/** Directories of layers that rows name. */
export function namedDirs({ read: { layers } }: Database): ReadonlySet<string> {
  const present = [...layers.committed(), ...layers.extracting()].map(layer => layer.dir)
  return new Set([...present, ...layers.retired()])
}
