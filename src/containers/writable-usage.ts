import { setTimeout } from 'node:timers/promises'
import { nowNs } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { DiskUsage } from '../model/usage.ts'
import type { Log } from '../observe/log.ts'
import { type TreeUsage, treeUsage } from '../os/files.ts'

type Entry = {
  usage: DiskUsage
  /** When it is worth another walk, monotonic ms. */
  dueAt: number
}

// A walk may take 2 % of the time of one container's life …
const INTERVAL_PER_COST = 50
const MIN_INTERVAL_MS = 10_000
// … but what a container has written is never unknown for longer.
const MAX_INTERVAL_MS = 600_000

// All walks together: less than a tenth of the event loop, however many containers have large layers.
const REST_PER_COST = 10

export type WritableUsageOptions = {
  /** Writable layer of a container, by its id. */
  readonly upperPath: (id: string) => string
  /** An existing directory on the file system of the layers: what the figures are said to belong to. */
  readonly mountpoint: string
  readonly log: Log
  readonly walk?: (dir: string) => Promise<TreeUsage>
  readonly monotonicMs?: () => number
  readonly rest?: (ms: number) => Promise<unknown>
}

/**
 * How much containers have written into their root file systems. Nobody waits for a walk: an answer is that of the
 * last one, with its time, and asking is what brings on the next. One walk at a time on the node.
 */
export class WritableUsage {
  readonly #upperPath: (id: string) => string
  readonly #mountpoint: string
  readonly #log: Log
  readonly #walk: (dir: string) => Promise<TreeUsage>
  readonly #monotonicMs: () => number
  readonly #rest: (ms: number) => Promise<unknown>
  readonly #entries = new Map<string, Entry>()
  /** Ids to walk, longest waiting first; a subset of the entries. */
  readonly #queue = new Set<string>()
  #walking = false

  constructor(options: WritableUsageOptions) {
    this.#upperPath = options.upperPath
    this.#mountpoint = options.mountpoint
    this.#log = options.log
    this.#walk = options.walk ?? treeUsage
    this.#monotonicMs = options.monotonicMs ?? (() => performance.now())
    // Never what keeps the daemon from ending.
    this.#rest = options.rest ?? (ms => setTimeout(ms, undefined, { ref: false }))
  }

  /** Before the first walk: one inode, no bytes, as an empty layer is nearly. */
  of(id: string): DiskUsage {
    const entry = this.#entries.get(id) ?? this.#add(id)
    if (entry.dueAt <= this.#monotonicMs()) this.#enqueue(id)
    return entry.usage
  }

  forget(id: string): void {
    this.#entries.delete(id)
    this.#queue.delete(id)
  }

  #add(id: string): Entry {
    const entry = { usage: this.#usage({ bytes: 0, inodes: 1 }), dueAt: 0 }
    this.#entries.set(id, entry)
    return entry
  }

  #usage({ bytes, inodes }: TreeUsage): DiskUsage {
    return {
      timestamp: nowNs(),
      mountpoint: this.#mountpoint,
      usedBytes: BigInt(bytes),
      inodesUsed: BigInt(inodes),
    }
  }

  #enqueue(id: string): void {
    this.#queue.add(id)
    if (!this.#walking) void this.#walkAll()
  }

  async #walkAll(): Promise<void> {
    this.#walking = true
    // Not within the call that asked.
    await this.#rest(0)
    for (const id of this.#queue) {
      const entry = this.#entries.get(id)
      const cost = entry === undefined ? 0 : await this.#refresh(id, entry)
      this.#queue.delete(id)
      await this.#rest(cost * REST_PER_COST)
    }
    this.#walking = false
  }

  /** @returns how long it took, ms; other work of the event loop counts, so that a busy node walks less */
  async #refresh(id: string, entry: Entry): Promise<number> {
    const start = this.#monotonicMs()
    let interval = MAX_INTERVAL_MS
    let cost = 0
    try {
      const usage = await this.#walk(this.#upperPath(id))
      cost = this.#monotonicMs() - start
      entry.usage = this.#usage(usage)
      interval = Math.min(Math.max(cost * INTERVAL_PER_COST, MIN_INTERVAL_MS), MAX_INTERVAL_MS)
    } catch (error) {
      this.#log.warn({ containerId: id, error: messageOf(error) }, 'the writable layer cannot be measured')
    }
    entry.dueAt = this.#monotonicMs() + interval
    return cost
  }
}
