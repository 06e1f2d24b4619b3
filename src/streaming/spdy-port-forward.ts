import type { Channel } from './channel.ts'
import type { Forward } from './port-forward.ts'
import type { Opening } from './spdy-connection.ts'

type Type = 'data' | 'error'

/**
 * Pairs at a time: what all streams of a connection make, and as many that wait or connect still though the client has
 * reset their streams, which are then counted no more.
 */
const MAX_PAIRS = 1000

type Pair = {
  readonly port: number
  readonly channels: Partial<Record<Type, Channel>>
  timer: NodeJS.Timeout | undefined
}

/**
 * Puts together the two streams of each forwarded connection: both name the same request, or, from old clients, the
 * error stream comes right before its data stream.
 */
export class ForwardPairs {
  readonly #pairs = new Map<string, Pair>()
  readonly #limitMs: number
  readonly #forward: (pair: Forward) => Promise<unknown>

  /** @param forward never rejects; its pair is known until it resolves */
  constructor(limitMs: number, forward: (pair: Forward) => Promise<unknown>) {
    this.#limitMs = limitMs
    this.#forward = forward
  }

  /** For the connection's `onStream`. */
  add(opening: Opening): void {
    const { id, headers } = opening
    const type = headers.get('streamtype')
    const port = portIn(headers.get('port'))
    if ((type !== 'data' && type !== 'error') || port === undefined) {
      opening.refuse()
      return
    }
    const key = headers.get('requestid') || String(type === 'error' ? id : id - 2)
    const known = this.#pairs.get(key)
    if (known === undefined && this.#pairs.size >= MAX_PAIRS) {
      opening.refuse()
      return
    }
    const pair = known ?? this.#begin(key, port)
    if (pair.channels[type] !== undefined || pair.port !== port) {
      // Short, however long the client's name for the request: it may ask so many times before it reads.
      pair.channels.error?.output.write(`this request has its ${type} stream already, or another port`)
      opening.refuse()
      return
    }
    pair.channels[type] = opening.accept()
    const { data, error } = pair.channels
    if (data === undefined || error === undefined) return
    clearTimeout(pair.timer)
    void this.#forward({ port, data, error }).then(() => this.#pairs.delete(key))
  }

  /** The connection has ended. */
  close(): void {
    for (const { timer } of this.#pairs.values()) clearTimeout(timer)
    this.#pairs.clear()
  }

  #begin(key: string, port: number): Pair {
    const timer = setTimeout(() => this.#giveUp(key), this.#limitMs)
    const pair: Pair = { port, channels: {}, timer }
    this.#pairs.set(key, pair)
    return pair
  }

  #giveUp(key: string): void {
    const { data, error } = this.#pairs.get(key)?.channels ?? {}
    this.#pairs.delete(key)
    error?.output.end(`request ${key} has no data stream after ${this.#limitMs / 1000} s`)
    error?.input.resume()
    data?.input.destroy()
  }
}

function portIn(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9]{1,5}$/.test(text)) return undefined
  const port = Number(text)
  return port >= 1 && port <= 65_535 ? port : undefined
}
