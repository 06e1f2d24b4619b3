import type { Digest } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import type { FileSystemUsage } from '../os/files.ts'
import { type ImageGcRules, makeRoom } from './collect-images.ts'
import { collectLayers } from './collect-layers.ts'
import type { ImageContext } from './image-context.ts'

/** kubelet tries a failed pull again after at most five minutes. */
const KEEP_FOR_RETRY_MS = 10 * 60_000

/** Pods are removed with all their containers: one look is enough for them. */
const COLLECT_DELAY_MS = 1000

/** When layers that nothing needs, and images of a full disk, are deleted. */
export class CollectSchedule {
  readonly #context: ImageContext
  readonly #rules: ImageGcRules
  readonly #diskUsage: ((path: string) => FileSystemUsage) | undefined
  #soonTimer: NodeJS.Timeout | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #regularTimer: NodeJS.Timeout | undefined
  #makingRoom: Promise<void> | undefined

  /** @param diskUsage by default statfs(2) */
  constructor(
    context: ImageContext,
    rules: ImageGcRules,
    diskUsage: ((path: string) => FileSystemUsage) | undefined,
  ) {
    this.#context = context
    this.#rules = rules
    this.#diskUsage = diskUsage
  }

  /** From now on at the interval of the configuration. */
  begin(): void {
    const { intervalMs } = this.#rules
    if (intervalMs > 0) this.#regularTimer = setInterval(() => this.#collect(), intervalMs).unref()
  }

  /** Something may have become garbage. In a moment, so that it is looked for once for many reasons. */
  soon(): void {
    this.#soonTimer ??= setTimeout(() => {
      this.#soonTimer = undefined
      this.#collect()
    }, COLLECT_DELAY_MS).unref()
  }

  /** Layers that whoever wanted them will ask for again are kept for a while. */
  keepForRetry(chainIds: readonly Digest[]): void {
    const { layers, leases } = this.#context
    const committed = chainIds.filter(id => layers.isCommitted(id))
    if (committed.length === 0) return
    leases.keep(committed, KEEP_FOR_RETRY_MS)
    clearTimeout(this.#retryTimer)
    // A second later: the clocks differ by less. A later failure puts it off, which is no harm.
    this.#retryTimer = setTimeout(() => this.#collect(), KEEP_FOR_RETRY_MS + 1000).unref()
  }

  /** Deletes images if the configuration asks for that, and the file system is too full. */
  makeRoom(): Promise<void> {
    this.#makingRoom ??= makeRoom(this.#context, this.#rules, this.#diskUsage).finally(() => {
      this.#makingRoom = undefined
    })
    return this.#makingRoom
  }

  /** What is broken off after this may still be kept: to be called again when nothing runs any more. */
  end(): void {
    for (const timer of [this.#soonTimer, this.#retryTimer, this.#regularTimer]) clearTimeout(timer)
  }

  #collect(): void {
    const { db, log, leases } = this.#context
    const failed = (error: unknown) =>
      log.warn({ error: messageOf(error) }, 'unused layers could not be deleted')
    try {
      collectLayers(this.#context, leases)
      db.keepReserve()
      this.makeRoom().catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}
