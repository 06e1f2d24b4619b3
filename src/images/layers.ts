import type { Digest } from '../base/digest.ts'
import type { Descriptor } from '../registry/manifest.ts'
import type { Snapshots } from '../storage/snapshots.ts'

/** One layer of an image that is being pulled. */
export type PlannedLayer = {
  readonly chainId: Digest
  readonly diffId: Digest
  /** The chain id below; undefined for the lowest layer. */
  readonly parent?: Digest
  readonly blob: Descriptor
}

/** What images need of the snapshots: layers, not mounts. */
export type LayerSnapshots = Pick<
  Snapshots,
  | 'prepare'
  | 'unpack'
  | 'finishLayer'
  | 'publishLayers'
  | 'checkLayer'
  | 'stagingPath'
  | 'stagedPath'
  | 'layerPath'
  | 'recordPath'
  | 'listLayerDirs'
  | 'listRecords'
  | 'listStaging'
  | 'discard'
  | 'emptied'
  | 'sweep'
>
