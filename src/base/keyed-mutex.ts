/**
 * One holder per key, first come first served. A key costs nothing while nobody holds it. Hold it over the steps
 * of one object; never over a grace period or a client's wait.
 */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>()

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key)
    const { promise: done, resolve: release } = Promise.withResolvers<void>()
    const tail = before === undefined ? done : before.then(() => done)
    this.#tails.set(key, tail)
    try {
      if (before !== undefined) await before
      return await work()
    } finally {
      release()
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    }
  }

  isHeld(key: string): boolean {
    return this.#tails.has(key)
  }

  /** Keys held or waited for. */
  get size(): number {
    return this.#tails.size
  }
}
