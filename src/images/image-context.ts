import type { Image } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Platform } from '../registry/platform.ts'
import type { Registry } from '../registry/registry.ts'
import type { Database } from '../state/database.ts'
import type { Garbage } from './collect-layers.ts'
import type { ImageIndex } from './image-index.ts'
import type { LayerDisposal } from './layer-disposal.ts'
import type { LayerHealth } from './layer-health.ts'
import type { LayerLeases } from './layer-leases.ts'
import type { LayerStore } from './layer-store.ts'
import type { LayerSnapshots } from './layers.ts'

/** What the work on images shares. */
export type ImageContext = {
  readonly db: Database
  readonly registry: Registry
  readonly snapshots: LayerSnapshots
  readonly disposal: LayerDisposal
  readonly log: Log
  readonly platform: Platform
  readonly index: ImageIndex
  readonly layers: LayerStore
  readonly leases: LayerLeases
  readonly health: LayerHealth
  /** Aborted when the daemon stops. */
  readonly closing: AbortSignal
  /** By any form of a reference; damaged images too. */
  find(reference: string): Image | undefined
  /** Deletes images, and the layers that nothing needs without them. */
  forget(images: readonly Image[]): Garbage
  /** Deletes the layers that nothing needs. */
  collect(): Promise<void>
  /** The same, in a moment. */
  collectSoon(): void
  /** Of an archive that is imported, uncompressed. */
  readonly maxArchiveBytes: number
}
