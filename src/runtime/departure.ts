/** A client's leaving, as its signal tells; holds no listener once disposed. */
export class Departure {
  /** Resolves when the client has left. */
  readonly gone: Promise<undefined>
  readonly #signal: AbortSignal
  readonly #leave: () => void

  constructor(signal: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.gone = promise
    this.#signal = signal
    this.#leave = () => resolve(undefined)
    if (signal.aborted) this.#leave()
    signal.addEventListener('abort', this.#leave, { once: true })
  }

  get isGone(): boolean {
    return this.#signal.aborted
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener('abort', this.#leave)
  }
}
