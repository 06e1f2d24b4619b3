import { sleep } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
import type { WantedStreams } from '../model/stream-request.ts'
import type { Channel } from './channel.ts'
import type { CommandProtocol } from './protocols.ts'
import type { CommandStreams } from './remote-command.ts'
import type { Opening } from './spdy-connection.ts'

type Name = keyof CommandStreams

/** Collects the streams of an exec or attach, which a SPDY client opens in any order, one of each. */
export class SpdyCommandStreams {
  readonly #missing: Set<Name>
  readonly #channels: Partial<Record<Name, Channel>> = {}
  readonly #complete = Promise.withResolvers<CommandStreams>()
  readonly #limitMs: number

  constructor(wanted: WantedStreams, protocol: Pick<CommandProtocol, 'resize'>, limitMs: number) {
    this.#missing = new Set(namesOf(wanted, protocol))
    this.#limitMs = limitMs
  }

  /** For the connection's `onStream`. */
  add(opening: Opening): void {
    const name = opening.headers.get('streamtype') as Name
    if (!this.#missing.delete(name)) {
      opening.refuse()
      return
    }
    this.#channels[name] = opening.accept()
    const { opened } = this
    if (this.#missing.size === 0 && opened !== undefined) this.#complete.resolve(opened)
  }

  /** When all are open. Rejects when they are not in time, or with the signal's reason. */
  async complete(signal: AbortSignal): Promise<CommandStreams> {
    const done = new AbortController()
    try {
      return await Promise.race([
        this.#complete.promise,
        sleep(this.#limitMs, AbortSignal.any([signal, done.signal])).then(() => this.#giveUp()),
      ])
    } finally {
      done.abort()
    }
  }

  /** What is open so far, where the client can be told of a failure. */
  get opened(): CommandStreams | undefined {
    const { error, ...others } = this.#channels
    return error === undefined ? undefined : { error, ...others }
  }

  #giveUp(): never {
    const names = [...this.#missing].join(', ')
    throw new BerthError('deadline', `the client did not open ${names} within ${this.#limitMs / 1000} s`)
  }
}

function namesOf(
  { tty, stdin, stdout, stderr }: WantedStreams,
  { resize }: Pick<CommandProtocol, 'resize'>,
): Name[] {
  return [
    'error',
    ...(stdin ? (['stdin'] as const) : []),
    ...(stdout ? (['stdout'] as const) : []),
    ...(stderr && !tty ? (['stderr'] as const) : []),
    ...(tty && resize ? (['resize'] as const) : []),
  ]
}
