import { sleep } from '../../src/base/clock.ts'
import { BerthError } from '../../src/base/errors.ts'
import type { BerthClient } from '../../src/cri/client.ts'
import type { BerthDaemon } from '../support/daemon.ts'
import { ImpatientClients } from '../support/impatience.ts'
import type { Chance } from './chance.ts'

/** ms after which a call is given up that is to be. */
const PATIENCE = [1, 3, 10, 30, 100, 300, 1000, 3000]

/** Between a call that failed and the next one of the same caller. */
const BREATH_MS = 300

/** What is not done by then never will be: a busy machine takes minutes for a hundred pods. */
const LIMIT_MS = 15 * 60_000

/**
 * What a client may meet although nothing is wrong: it gave up; nobody is there, or not yet; or the answer came just
 * when it gave up, and the same call again is a duplicate.
 */
const PASSING = new Set(['deadline', 'cancelled', 'unavailable', 'exists'])

export type CallCounts = {
  calls: number
  /** Among them those whose client was one that gives up soon. */
  impatient: number
  givenUp: number
  /** Nobody answered: the daemon was killed, or is starting. */
  unanswered: number
  /** The same call a second time was told that it had succeeded: its answer was on its way when it was given up. */
  lostAnswers: number
  /** Anything else that failed. */
  refused: string[]
}

/** Whether a call was told that it had succeeded before. */
export function isDuplicate(error: unknown): boolean {
  const { code, message } = error as BerthError
  return code === 'exists' || (code === 'precondition' && message.includes('is running; only a created one'))
}

/** The clients of a daemon that is killed now and then: each call may be given up by chance, and is made again. */
export class Callers implements Disposable {
  readonly counts: CallCounts = {
    calls: 0,
    impatient: 0,
    givenUp: 0,
    unanswered: 0,
    lostAnswers: 0,
    refused: [],
  }
  readonly #daemon: BerthDaemon
  readonly #share: number
  #impatient: ImpatientClients | undefined

  /** @param share of calls that are given up after a time by chance */
  static async of(daemon: BerthDaemon, share: number): Promise<Callers> {
    const callers = new Callers(daemon, share)
    await callers.reconnect()
    return callers
  }

  private constructor(daemon: BerthDaemon, share: number) {
    this.#daemon = daemon
    this.#share = share
  }

  /** To the daemon's next process. */
  async reconnect(): Promise<void> {
    const before = this.#impatient
    this.#impatient = await ImpatientClients.connect(this.#daemon.socket, PATIENCE)
    before?.[Symbol.dispose]()
  }

  /** Once; given up by chance. */
  async once<T>(chance: Chance, call: (client: BerthClient) => Promise<T>): Promise<T> {
    const { counts } = this
    counts.calls++
    const impatient = this.#impatient !== undefined && chance.happens(this.#share)
    if (impatient) counts.impatient++
    try {
      return await call(impatient ? chance.pick(this.#impatient!.all) : this.#daemon.client)
    } catch (error) {
      this.#count(error)
      throw error
    }
  }

  #count(error: unknown): void {
    const { code, message } = error as BerthError
    if (code === 'deadline' || code === 'cancelled') this.counts.givenUp++
    else if (code === 'unavailable') this.counts.unanswered++
    else if (isDuplicate(error)) this.counts.lostAnswers++
    else this.counts.refused.push(message)
  }

  /** Until it answers with something else than undefined. */
  async again<T>(what: string, attempt: () => Promise<T | undefined>): Promise<T> {
    const end = performance.now() + LIMIT_MS
    for (;;) {
      try {
        const result = await attempt()
        if (result !== undefined) return result
      } catch (error) {
        if (!(error instanceof BerthError) || !PASSING.has(error.code)) throw error
      }
      if (performance.now() > end) throw new Error(`it never came to pass that ${what}`)
      await sleep(BREATH_MS)
    }
  }

  [Symbol.dispose](): void {
    this.#impatient?.[Symbol.dispose]()
  }
}
