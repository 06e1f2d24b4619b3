import { BerthError } from './errors.ts'

type Flight<T> = { readonly promise: Promise<T>; readonly abort: AbortController; waiters: number }

/**
 * One running operation per key; whoever asks meanwhile gets the same outcome. A waiter that gives up only detaches
 * itself. When the last one has left, the operation's signal is aborted (`cancel: 'last-waiter'`) or it runs on
 * to its end (`cancel: 'never'`), which is what makes a retry after a client's timeout join the work it abandoned.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>()
  readonly #cancel: 'last-waiter' | 'never'

  constructor(cancel: 'last-waiter' | 'never') {
    this.#cancel = cancel
  }

  has(key: string): boolean {
    return this.#flights.has(key)
  }

  get size(): number {
    return this.#flights.size
  }

  /** Every running operation, for a shutdown that waits for them. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#flights.values()].map(flight => flight.promise))
  }

  run(key: string, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    let flight = this.#flights.get(key)
    // A flight that was aborted is on its way out: wait until it is gone, then start afresh.
    if (flight?.abort.signal.aborted === true) {
      return flight.promise.then(
        () => this.run(key, signal, work),
        () => this.run(key, signal, work),
      )
    }
    if (flight === undefined) {
      const abort = new AbortController()
      const promise = work(abort.signal).finally(() => this.#flights.delete(key))
      promise.catch(() => undefined) // every waiter may have left by then
      flight = { promise, abort, waiters: 0 }
      this.#flights.set(key, flight)
    }
    return this.#wait(flight, signal)
  }

  async #wait(flight: Flight<T>, signal: AbortSignal | undefined): Promise<T> {
    flight.waiters++
    const { promise: left, reject } = Promise.withResolvers<never>()
    const leave = () => reject(new BerthError('cancelled', 'the caller gave up', signal?.reason))
    if (signal?.aborted === true) leave()
    signal?.addEventListener('abort', leave, { once: true })
    try {
      return await Promise.race([flight.promise, left])
    } finally {
      signal?.removeEventListener('abort', leave)
      flight.waiters--
      if (flight.waiters === 0 && this.#cancel === 'last-waiter') flight.abort.abort()
    }
  }
}
