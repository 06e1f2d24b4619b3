import { BerthError } from '../base/errors.ts'

/**
 * Many at once, or one alone. The one alone waits for a moment in which nobody is inside and never holds up
 * newcomers before it has begun.
 */
export class SharedGate {
  #inside = 0
  #alone: Promise<void> | undefined
  readonly #waiting = new Set<() => void>()

  async shared<T>(work: () => Promise<T>): Promise<T> {
    while (this.#alone !== undefined) await this.#alone
    this.#inside++
    try {
      return await work()
    } finally {
      this.#inside--
      if (this.#inside === 0) this.#wake()
    }
  }

  /** @throws BerthError unavailable when there was no such moment within `maxWaitMs` */
  async alone<T>(maxWaitMs: number, work: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + maxWaitMs
    while (this.#inside > 0 || this.#alone !== undefined) {
      if (performance.now() >= deadline) {
        throw new BerthError('unavailable', `never idle for ${Math.round(maxWaitMs / 1000)} s`)
      }
      await this.#idle(deadline - performance.now())
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#alone = promise
    try {
      return await work()
    } finally {
      this.#alone = undefined
      resolve()
      this.#wake()
    }
  }

  #idle(maxWaitMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const done = () => {
      clearTimeout(timer)
      this.#waiting.delete(done)
      resolve()
    }
    const timer = setTimeout(done, maxWaitMs)
    this.#waiting.add(done)
    return promise
  }

  #wake(): void {
    for (const done of [...this.#waiting]) done()
  }
}
