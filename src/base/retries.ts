import { messageOf } from './errors.ts'

/** What hindered it may be over soon: a plugin that was being replaced, a process on its way out. */
const FIRST_MS = 5000

/** What lasts (a dead file server) is looked at this often, without anybody's asking. */
const LONGEST_MS = 5 * 60_000

type RetriesOptions = {
  /** Hears of each failure, and of the success that ends them. */
  readonly log: {
    warn(fields: object, message: string): void
    info(fields: object, message: string): void
  }
  /** ms to the first retry, doubled after each failure; 5 s unless given. */
  readonly firstMs?: number
}

/**
 * Work for which nobody else may ever ask (clean-ups, recoveries), tried again with growing pauses until it succeeds.
 * Memory only: what a start of the daemon does anyway is not remembered beyond it.
 */
export class Retries {
  readonly #options: RetriesOptions
  readonly #timers = new Map<string, NodeJS.Timeout>()
  #isClosed = false

  constructor(options: RetriesOptions) {
    this.#options = options
  }

  /**
   * Tries `work` later, and again until it does not throw. One that waits already under this key stays as it is.
   * @param what `clearing container 0123…`, also the key
   */
  later(what: string, work: () => Promise<void>): void {
    this.#wait(what, work, this.#options.firstMs ?? FIRST_MS)
  }

  close(): void {
    this.#isClosed = true
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  #wait(what: string, work: () => Promise<void>, pauseMs: number): void {
    if (this.#isClosed || this.#timers.has(what)) return
    const timer = setTimeout(() => void this.#try(what, work, pauseMs), pauseMs)
    this.#timers.set(what, timer.unref())
  }

  async #try(what: string, work: () => Promise<void>, pauseMs: number): Promise<void> {
    const { log } = this.#options
    try {
      await work()
      this.#timers.delete(what)
      log.info({ what }, 'what had failed is done')
    } catch (error) {
      this.#timers.delete(what)
      const next = Math.min(pauseMs * 2, LONGEST_MS)
      log.warn({ what, error: messageOf(error), nextMs: next }, 'what had failed has failed again')
      this.#wait(what, work, next)
    }
  }
}
