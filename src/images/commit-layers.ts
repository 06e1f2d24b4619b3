import { existsSync } from 'node:fs'
import type { Digest } from '../base/digest.ts'
import type { Database } from '../state/database.ts'
import type { UnpackedLayer } from '../storage/snapshots.ts'
import type { LayerSnapshots, PlannedLayer } from './layers.ts'

/** A layer that is unpacked and verified, in its staging directory. */
export type StagedLayer = {
  readonly layer: PlannedLayer
  readonly staging: string
  readonly unpacked: UnpackedLayer
}

type Pending = StagedLayer & {
  readonly signal: AbortSignal
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** What a layer becomes: the name of its directory, and whether its row was there before. */
type Named = Pending & { readonly dir: string; readonly isKnown: boolean }

export type CommitterOptions = {
  readonly db: Database
  readonly snapshots: LayerSnapshots
  /** Directories of a committed chain, topmost first. */
  pathsOf(top: Digest | undefined): string[]
}

/**
 * Commits layers in chain order, as many at once as are ready: while one batch is being synced the next one gathers.
 * A sync costs the same for one small layer as for twenty.
 */
export class LayerCommitter {
  readonly #options: CommitterOptions
  readonly #pending = new Map<Digest, Pending>()
  #isRunning = false

  constructor(options: CommitterOptions) {
    this.#options = options
  }

  /**
   * Returns when the layer is committed, which it is after those below it. Giving up counts only until its turn has
   * come: then it waits for the outcome.
   */
  commit(staged: StagedLayer, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { chainId } = staged.layer
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const leave = () => {
      if (this.#pending.delete(chainId)) reject(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
    this.#pending.set(chainId, { ...staged, signal, resolve, reject })
    if (!this.#isRunning) void this.#run()
    return promise.finally(() => signal.removeEventListener('abort', leave))
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    try {
      for (let batch = this.#take(); batch.length > 0; batch = this.#take()) await this.#commitAll(batch)
    } finally {
      this.#isRunning = false
    }
  }

  /** Those whose turn it is: lower layers first. */
  #take(): Pending[] {
    const taken = new Map<Digest, Pending>()
    for (let before = -1; before < taken.size; ) {
      before = taken.size
      for (const [chainId, pending] of this.#pending) {
        const { parent } = pending.layer
        if (taken.has(chainId)) continue
        if (parent === undefined || taken.has(parent) || this.#isCommitted(parent))
          taken.set(chainId, pending)
      }
    }
    for (const chainId of taken.keys()) this.#pending.delete(chainId)
    return [...taken.values()]
  }

  #isCommitted(chainId: Digest): boolean {
    return this.#options.db.read.layers.get(chainId) !== undefined
  }

  async #commitAll(batch: readonly Pending[]): Promise<void> {
    const finished = await this.#finish(batch)
    if (finished.length === 0) return
    let named: readonly Named[] = []
    try {
      named = this.#name(finished)
      await this.#options.snapshots.publishLayers(named)
      this.#options.db.transact('layers committed', tx => {
        for (const { layer, unpacked } of named)
          tx.layers.commit(layer.chainId, unpacked.size, unpacked.inodes)
      })
    } catch (error) {
      try {
        this.#undo(named)
      } finally {
        for (const { reject } of finished) reject(error)
      }
      return
    }
    for (const { resolve } of named) resolve()
  }

  /** One that cannot be finished fails alone; those above it wait on, until they are given up. */
  async #finish(batch: readonly Pending[]): Promise<Pending[]> {
    const paths = new Map<Digest, readonly string[]>()
    const failed = new Set<Digest>()
    const finished: Pending[] = []
    for (const pending of batch) {
      const { layer, staging, unpacked, signal, reject } = pending
      const { chainId, parent } = layer
      try {
        signal.throwIfAborted()
        if (parent !== undefined && failed.has(parent)) {
          failed.add(chainId)
          this.#pending.set(chainId, pending)
          continue
        }
        const below = (parent && paths.get(parent)) ?? this.#options.pathsOf(parent)
        await this.#options.snapshots.finishLayer(staging, unpacked, below)
        paths.set(chainId, [staging, ...below])
        finished.push(pending)
      } catch (error) {
        failed.add(chainId)
        reject(error)
      }
    }
    return finished
  }

  /** The intents. A row without its directory gets it back under its old name. */
  #name(layers: readonly Pending[]): Named[] {
    const { db } = this.#options
    const known = new Map(layers.map(({ layer }) => [layer, db.read.layers.get(layer.chainId)?.dir]))
    const names = db.transact('layers extracting', tx =>
      layers.map(({ layer }) => {
        const dir = known.get(layer)
        if (dir !== undefined) return dir
        tx.layers.delete(layer.chainId) // an intent whose undo failed
        return tx.layers.insertExtracting(layer, layer.blob)
      }),
    )
    return layers.map((pending, index) => ({
      ...pending,
      dir: names[index]!,
      isKnown: known.get(pending.layer) !== undefined,
    }))
  }

  #undo(layers: readonly Named[]): void {
    const { db, snapshots } = this.#options
    const made = layers.filter(({ isKnown }) => !isKnown).toReversed()
    if (made.length > 0) {
      db.transact('layers given up', tx => {
        for (const { layer } of made) tx.layers.delete(layer.chainId)
      })
    }
    for (const path of layers.map(({ dir }) => snapshots.layerPath(dir))) {
      if (existsSync(path)) snapshots.discard(path)
    }
  }
}
