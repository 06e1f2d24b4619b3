import { type Digest, hexOf } from '../base/digest.ts'
import { Semaphore } from '../base/semaphore.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { Layer } from '../model/image.ts'
import type { Repository } from '../registry/registry.ts'
import type { Database } from '../state/database.ts'
import type { UnpackedLayer, UnpackLimits } from '../storage/snapshots.ts'
import { LayerCommitter } from './commit-layers.ts'
import type { LayerLeases } from './layer-leases.ts'
import type { LayerSnapshots, PlannedLayer } from './layers.ts'
import { asPullError } from './pull-error.ts'

/** Where the layers of one image come from. */
export type LayerSource = {
  /** For messages. */
  readonly reference: string
  readonly repository: Repository
  /** Lowest first. */
  readonly layers: readonly PlannedLayer[]
}

/** How far a layer is that is being fetched; bytes are compressed ones. */
export type FetchState = { state: 'waiting' | 'downloading' | 'unpacking'; bytes: number }

export type LayerStoreOptions = {
  readonly db: Database
  readonly snapshots: LayerSnapshots
  readonly leases: LayerLeases
  readonly limits: UnpackLimits
  /** Layers on their way at once, over all pulls. */
  readonly maxParallelDownloads: number
  /** A layer that was damaged is whole again. */
  readonly onReplaced: (chainId: Digest) => void
}

/**
 * Brings layers into the store. A layer, known by its chain id, is fetched once however many images ask for it, and
 * unpacked without those below it; it is committed only after them. Whoever gives up leaves; when nobody is left, the
 * layer is given up too.
 */
export class LayerStore {
  readonly #options: LayerStoreOptions
  readonly #slots: Semaphore
  readonly #flights = new SingleFlight<void>('last-waiter')
  readonly #states = new Map<Digest, FetchState>()
  readonly #committer: LayerCommitter

  constructor(options: LayerStoreOptions) {
    this.#options = options
    this.#slots = new Semaphore('layer downloads', options.maxParallelDownloads)
    this.#committer = new LayerCommitter({
      ...options,
      pathsOf: top => this.pathsOf(top),
      has: id => this.has(id),
    })
  }

  /** Committed, and as far as can be told at a glance its directory is what it should be. */
  has(chainId: Digest): boolean {
    const layer = this.#options.db.read.layers.get(chainId)
    return layer !== undefined && this.damageOf(layer) === undefined
  }

  /** What is wrong with a layer: what was found before, or what a glance at its directory tells. */
  damageOf(layer: Layer): string | undefined {
    return layer.damage ?? this.#options.snapshots.checkLayer(layer.dir, layer.seal)
  }

  isCommitted(chainId: Digest): boolean {
    return this.#options.db.read.layers.get(chainId) !== undefined
  }

  /** undefined when nobody is fetching it. */
  stateOf(chainId: Digest): Readonly<FetchState> | undefined {
    return this.#states.get(chainId)
  }

  /** Directories of a chain, topmost first. */
  pathsOf(top: Digest | undefined): string[] {
    if (top === undefined) return []
    const { db, snapshots } = this.#options
    return db.read.layers.chain(top).map(layer => snapshots.layerPath(layer.dir))
  }

  /** Returns when all layers are committed. @throws BerthError see asPullError */
  async fetch(source: LayerSource, signal: AbortSignal): Promise<void> {
    if (source.layers.every(layer => this.has(layer.chainId))) return
    this.#options.snapshots.prepare()
    await this.#ensure(source, source.layers.length - 1, signal)
  }

  /** Waits for what is being fetched, or cleaned up after. */
  settled(): Promise<void> {
    return this.#flights.settled()
  }

  async #ensure(source: LayerSource, index: number, signal: AbortSignal): Promise<void> {
    const { chainId } = source.layers[index]!
    for (let isRetry = false; ; isRetry = true) {
      let isOurs = false
      try {
        return await this.#flights.run(chainId, signal, inner => {
          isOurs = true
          return this.#obtain(source, index, inner)
        })
      } catch (error) {
        // What another pull could not get from its registry may be had from ours.
        if (isOurs || isRetry || signal.aborted) throw error
      }
    }
  }

  /** The layer at `index` and, at the same time, those below it. */
  async #obtain(source: LayerSource, index: number, signal: AbortSignal): Promise<void> {
    const { leases, snapshots } = this.#options
    const layer = source.layers[index]!
    const release = leases.hold(source.layers.slice(0, index + 1).map(({ chainId }) => chainId))
    const failed = new AbortController()
    const either = AbortSignal.any([signal, failed.signal])
    const below = index === 0 ? undefined : this.#ensure(source, index - 1, either)
    const staging = snapshots.stagingPath(hexOf(layer.chainId))
    const own = this.has(layer.chainId) ? undefined : this.#fetch(source, layer, staging, either)
    try {
      await Promise.all([own, below])
    } catch (error) {
      failed.abort(error)
      await Promise.allSettled([own, below])
      this.#discard(staging)
      throw asPullError(`${source.reference}: layer ${layer.blob.digest}`, error)
    } finally {
      this.#states.delete(layer.chainId)
      release()
    }
  }

  /** Into staging, and from there into its place once those below are in theirs. */
  async #fetch(
    source: LayerSource,
    layer: PlannedLayer,
    staging: string,
    signal: AbortSignal,
  ): Promise<void> {
    const unpacked = await this.#unpack(source, layer, staging, signal)
    await this.#committer.commit({ layer, staging, unpacked }, signal)
  }

  async #unpack(
    { repository }: LayerSource,
    { chainId, diffId, blob }: PlannedLayer,
    staging: string,
    signal: AbortSignal,
  ): Promise<UnpackedLayer> {
    const progress: FetchState = { state: 'waiting', bytes: 0 }
    this.#states.set(chainId, progress)
    const onBytes = (total: number) => {
      progress.bytes = total
      progress.state = total < blob.size ? 'downloading' : 'unpacking'
    }
    const unpacked = await this.#slots.run(async () => {
      const stream = await repository.openBlob(blob, signal, onBytes)
      return this.#options.snapshots.unpack(stream, staging, this.#options.limits, signal)
    }, signal)
    if (unpacked.blobDigest !== blob.digest || unpacked.blobSize !== blob.size) {
      throw new Error(
        `the content received has digest ${unpacked.blobDigest} and ${unpacked.blobSize} bytes; expected ${blob.size}`,
      )
    }
    if (unpacked.diffId !== diffId) {
      throw new Error(
        `the uncompressed content has digest ${unpacked.diffId} instead of the ${diffId} that the image's configuration says`,
      )
    }
    return unpacked
  }

  #discard(path: string): void {
    this.#options.snapshots.discard(path)
  }
}
