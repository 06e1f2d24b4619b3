import type { Digest } from '../base/digest.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import type { Layer } from '../model/image.ts'
import type { Database } from '../state/database.ts'
import { nextDir } from '../state/layers.ts'
import type { LayerSeal, UnpackedLayer } from '../storage/snapshots.ts'
import type { LayerDisposal } from './layer-disposal.ts'
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

type Finished = Pending & { readonly seal: LayerSeal }

/** What a layer becomes: the name of its directory, and the row that it had before. */
type Named = Finished & { readonly dir: string; readonly before: Layer | undefined }

export type CommitterOptions = {
  readonly db: Database
  readonly snapshots: LayerSnapshots
  readonly disposal: LayerDisposal
  /** Directories of a committed chain, topmost first. */
  pathsOf(top: Digest | undefined): string[]
  /** Whether a layer is committed and can be stood on. */
  has(chainId: Digest): boolean
  /** A layer that was damaged is whole again. */
  onReplaced(chainId: Digest): void
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
    } catch (error) {
      // Nobody waits for this but those who wait in line.
      for (const { reject } of this.#pending.values()) reject(error)
      this.#pending.clear()
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
        if (parent === undefined || taken.has(parent) || this.#options.has(parent))
          taken.set(chainId, pending)
      }
    }
    for (const chainId of taken.keys()) this.#pending.delete(chainId)
    return [...taken.values()]
  }

  async #commitAll(batch: readonly Pending[]): Promise<void> {
    const finished = await this.#finish(batch)
    if (finished.length === 0) return
    let named: readonly Named[] = []
    try {
      named = this.#name(finished)
      await this.#options.snapshots.publishLayers(named)
      this.#options.db.transact('layers committed', tx => {
        for (const { layer, unpacked, seal, dir, before } of named) {
          const committed = { size: unpacked.size, inodes: unpacked.inodes, seal }
          if (before === undefined) tx.layers.commit(layer.chainId, committed)
          else tx.layers.replace(before, dir, committed)
        }
      })
    } catch (error) {
      const why = this.#undo(named, error)
      for (const { reject } of finished) reject(why)
      return
    }
    for (const { layer, before, resolve } of named) {
      if (before !== undefined) this.#options.onReplaced(layer.chainId)
      resolve()
    }
  }

  /** One that cannot be finished fails alone; those above it wait on, until they are given up. */
  async #finish(batch: readonly Pending[]): Promise<Finished[]> {
    const paths = new Map<Digest, readonly string[]>()
    const failed = new Set<Digest>()
    const finished: Finished[] = []
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
        const seal = await this.#options.snapshots.finishLayer(staging, unpacked, below)
        paths.set(chainId, [staging, ...below])
        finished.push({ ...pending, seal })
      } catch (error) {
        failed.add(chainId)
        reject(error)
      }
    }
    return finished
  }

  /**
   * The intents. A layer that has a row gets a new directory beside the old one, for containers may stand on that, and
   * beside what tries that were broken off have left, which may be impossible to move away.
   */
  #name(layers: readonly Finished[]): Named[] {
    const { db, disposal } = this.#options
    const rows = layers.map(({ layer }) => db.read.layers.get(layer.chainId))
    // Of an undo that failed: this is the only batch. A child's number is above its parent's.
    const left = db.read.layers.extracting().toSorted((a, b) => Number(b.dir) - Number(a.dir))
    const taken = rows.some(row => row !== undefined) ? this.#takenDirs() : new Set<string>()
    const names = db.transact('layers extracting', tx => {
      for (const { chainId } of left) tx.layers.delete(chainId)
      return layers.map(({ layer }, index) => {
        const before = rows[index]
        return before === undefined ? tx.layers.insertExtracting(layer, layer.blob) : nextDir(before, taken)
      })
    })
    for (const { dir } of left) disposal.discardLayer(dir)
    return layers.map((finished, index) => ({ ...finished, dir: names[index]!, before: rows[index] }))
  }

  #takenDirs(): ReadonlySet<string> {
    const { snapshots } = this.#options
    return new Set([...snapshots.listLayerDirs(), ...snapshots.listRecords()])
  }

  /**
   * What fails here, as it may on a full disk, is left to the next try or start: it replaces the intents that it finds.
   * @returns the error, with what else went wrong
   */
  #undo(layers: readonly Named[], error: unknown): unknown {
    const { db, disposal } = this.#options
    const made = layers.filter(({ before }) => before === undefined).toReversed()
    for (const { dir, before } of layers) if (before !== undefined) disposal.discardLayer(dir)
    try {
      if (made.length > 0) {
        db.transact('layers given up', tx => {
          for (const { layer } of made) tx.layers.delete(layer.chainId)
        })
      }
      for (const { dir } of made) disposal.discardLayer(dir)
      return error
    } catch (more) {
      const what = `${messageOf(error)}; undoing it failed: ${messageOf(more)}`
      return new BerthError(error instanceof BerthError ? error.code : 'internal', what, error)
    }
  }
}
