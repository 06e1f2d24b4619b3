import { sleep } from '../../src/base/clock.ts'
import { type BerthError, isCode, messageOf } from '../../src/base/errors.ts'
import { BerthClient } from '../../src/cri/client.ts'
import { protoDir } from './cri.ts'

/** Longer than any daemon takes to be replaced. */
const PATIENCE_MS = 120_000
const PAUSE_MS = 20
const CALL_TIMEOUT_MS = 60_000

/**
 * Calls a daemon as kubelet does while it is replaced: what cannot be served now is asked again with the same request,
 * over a new connection. Any other error than UNAVAILABLE is the caller's.
 */
export class StubbornClient implements Disposable {
  /** How many calls were answered UNAVAILABLE, by the words they were answered with. */
  readonly refusals = new Map<string, number>()
  /** Attempts that found no daemon. */
  absences = 0
  readonly #socket: string
  #client: BerthClient | undefined

  constructor(socket: string) {
    this.#socket = socket
  }

  runtime: BerthClient['runtime'] = (name, request) =>
    this.#persist(async (client, isRepeated) => {
      try {
        return await client.runtime(name, request)
      } catch (error) {
        // The first call did it, and its answer was lost: kubelet sees that in its list.
        const isDone = isRepeated && name === 'StartContainer' && isCode(error, 'precondition')
        if (isDone) return {} as never
        throw error
      }
    })

  image: BerthClient['image'] = (name, request) => this.#persist(client => client.image(name, request))

  /** Messages of a stream that begins again whenever it breaks, until the signal is given. */
  async *events(signal: AbortSignal): ReturnType<BerthClient['runtimeStream']> {
    while (!signal.aborted) {
      const client = await this.#connect()
      try {
        yield* client.runtimeStream('GetContainerEvents', {}, signal)
      } catch (error) {
        if (!signal.aborted) await this.#note(error as BerthError, client)
      }
    }
  }

  async #persist<T>(call: (client: BerthClient, isRepeated: boolean) => Promise<T>): Promise<T> {
    const end = performance.now() + PATIENCE_MS
    for (let tries = 0; ; tries++) {
      const client = await this.#connect()
      try {
        return await call(client, tries > 0)
      } catch (error) {
        if (performance.now() > end) throw error
        await this.#note(error as BerthError, client)
      }
    }
  }

  async #connect(): Promise<BerthClient> {
    const end = performance.now() + PATIENCE_MS
    for (;;) {
      if (this.#client !== undefined) return this.#client
      try {
        this.#client = await BerthClient.connect(this.#socket, protoDir, { timeoutMs: CALL_TIMEOUT_MS })
      } catch (error) {
        if (performance.now() > end) throw error
        this.absences++
        await sleep(PAUSE_MS)
      }
    }
  }

  async #note(error: BerthError, client: BerthClient): Promise<void> {
    if (!isCode(error, 'unavailable')) throw error
    const words = messageOf(error)
    this.refusals.set(words, (this.refusals.get(words) ?? 0) + 1)
    if (this.#client === client) {
      this.#client = undefined
      client[Symbol.dispose]()
    }
    await sleep(PAUSE_MS)
  }

  [Symbol.dispose](): void {
    this.#client?.[Symbol.dispose]()
  }
}
