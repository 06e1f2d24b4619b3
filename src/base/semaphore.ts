import { BerthError } from './errors.ts'

/**
 * At most `limit` holders at once; the rest wait in order, at most `maxWaiting` of them, so that a storm ends in a
 * clear error and not in memory.
 */
export class Semaphore {
  readonly #name: string
  readonly #limit: number
  readonly #maxWaiting: number
  readonly #queue: Array<() => void> = []
  #held = 0

  constructor(name: string, limit: number, maxWaiting = 10_000) {
    this.#name = name
    this.#limit = limit
    this.#maxWaiting = maxWaiting
  }

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    using _ = await this.enter(signal)
    return await work()
  }

  /** A place among the holders, until it is disposed of. */
  async enter(signal?: AbortSignal): Promise<Disposable> {
    await this.#acquire(signal)
    return { [Symbol.dispose]: () => this.#release() }
  }

  #acquire(signal?: AbortSignal): Promise<void> | void {
    signal?.throwIfAborted()
    if (this.#held < this.#limit) {
      this.#held++
      return
    }
    if (this.#queue.length >= this.#maxWaiting) {
      throw new BerthError('exhausted', `${this.#name}: ${this.#maxWaiting} operations are waiting already`)
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const enter = () => {
      signal?.removeEventListener('abort', leave)
      resolve()
    }
    const leave = () => {
      const at = this.#queue.indexOf(enter)
      if (at >= 0) this.#queue.splice(at, 1)
      reject(signal?.reason)
    }
    this.#queue.push(enter)
    signal?.addEventListener('abort', leave, { once: true })
    return promise
  }

  #release(): void {
    const next = this.#queue.shift()
    if (next === undefined) this.#held--
    else next()
  }
}
