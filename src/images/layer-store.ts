import { type Digest, hexOf } from '../base/digest.ts'
import { Semaphore } from '../base/semaphore.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { Layer } from '../model/image.ts'
import type { Repository } from '../registry/registry.ts'
import type { Database } from '../state/database.ts'
import type { UnpackLimits } from '../storage/snapshots.ts'
import { LayerCommitter } from './commit-layers.ts'
import { type FetchState, LayerFetch, type LayerReport, type OpenPartial } from './fetch-layer.ts'
import type { LayerDisposal } from './layer-disposal.ts'
import type { LayerLeases } from './layer-leases.ts'
import type { LayerSnapshots, PlannedLayer } from './layers.ts'
import { asPullError } from './pull-error.ts'

/** Where the layers of one image come from. */
export type LayerSource = {
  /** For messages. */
  readonly reference: string
  readonly repository: Pick<Repository, 'openBlob'>
  /** Lowest first. */
  readonly layers: readonly PlannedLayer[]
}

export type LayerStoreOptions = {
  readonly db: Database
  readonly snapshots: LayerSnapshots
  readonly disposal: LayerDisposal
  readonly leases: LayerLeases
  readonly limits: UnpackLimits
  readonly openPartial: OpenPartial
  /** Layers of one pull on their way at once, and of all pulls. */
  readonly maxParallelDownloads: number
  /** A layer that was damaged is whole again. */
  readonly onReplaced: (chainId: Digest) => void
  readonly maxNodeDownloads: number
  /** Told of each layer that was fetched, also when it failed. */
  readonly onFetched: (report: LayerReport) => void
}

/** A pull's own slots beside those of the node. */
type Slotted = LayerSource & { readonly slots: Semaphore }

/**
 * Brings layers into the store. A layer, known by its chain id, is fetched once however many images ask for it, and
 * unpacked without those below it; it is committed only after them. Whoever gives up leaves; when nobody is left, the
 * layer is given up too.
 */
export class LayerStore {
  readonly #options: LayerStoreOptions
  readonly #slots: Semaphore
  readonly #flights = new SingleFlight<readonly LayerReport[]>('last-waiter')
  readonly #fetches = new Map<Digest, LayerFetch>()
  readonly #committer: LayerCommitter

  constructor(options: LayerStoreOptions) {
    this.#options = options
    this.#slots = new Semaphore('layer downloads', options.maxNodeDownloads)
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
  stateOf(chainId: Digest): FetchState | undefined {
    return this.#fetches.get(chainId)?.state
  }

  /** Directories of a chain, topmost first. */
  pathsOf(top: Digest | undefined): string[] {
    if (top === undefined) return []
    const { db, snapshots } = this.#options
    return db.read.layers.chain(top).map(layer => snapshots.layerPath(layer.dir))
  }

  /**
   * Returns when all layers are committed.
   * @returns of those that were not there, in no order
   * @throws BerthError see asPullError
   */
  async fetch(source: LayerSource, signal: AbortSignal): Promise<readonly LayerReport[]> {
    if (source.layers.every(layer => this.has(layer.chainId))) return []
    this.#options.snapshots.prepare()
    const slots = new Semaphore('layers of a pull', this.#options.maxParallelDownloads)
    return this.#ensure({ ...source, slots }, source.layers.length - 1, signal)
  }

  /** Waits for what is being fetched, or cleaned up after. */
  settled(): Promise<void> {
    return this.#flights.settled()
  }

  async #ensure(source: Slotted, index: number, signal: AbortSignal): Promise<readonly LayerReport[]> {
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
  async #obtain(source: Slotted, index: number, signal: AbortSignal): Promise<readonly LayerReport[]> {
    const layer = source.layers[index]!
    const release = this.#options.leases.hold(source.layers.slice(0, index + 1).map(({ chainId }) => chainId))
    const failed = new AbortController()
    const either = AbortSignal.any([signal, failed.signal])
    const below = index === 0 ? [] : this.#ensure(source, index - 1, either)
    const own = this.has(layer.chainId) ? [] : this.#fetch(source, layer, either)
    try {
      return (await Promise.all([own, below])).flat()
    } catch (error) {
      failed.abort(error)
      await Promise.allSettled([own, below])
      throw asPullError(`${source.reference}: layer ${layer.blob.digest}`, error)
    } finally {
      release()
    }
  }

  /** Into staging, and from there into its place once those below are in theirs. */
  async #fetch(
    { repository, slots }: Slotted,
    layer: PlannedLayer,
    signal: AbortSignal,
  ): Promise<LayerReport[]> {
    const { snapshots, disposal, onFetched } = this.#options
    const staging = snapshots.stagingPath(hexOf(layer.chainId))
    const fetch = new LayerFetch(this.#options, layer, staging)
    this.#fetches.set(layer.chainId, fetch)
    let isCommitted = false
    try {
      const run = () => this.#slots.run(() => fetch.run(repository, signal), signal)
      const unpacked = await slots.run(run, signal)
      await this.#committer.commit({ layer, staging, unpacked }, signal)
      isCommitted = true
      return [fetch.report]
    } finally {
      this.#fetches.delete(layer.chainId)
      disposal.discardStaged(staging)
      await fetch.end(isCommitted)
      onFetched(fetch.report)
    }
  }
}
