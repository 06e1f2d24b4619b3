import { setMaxListeners } from 'node:events'
import { sleep } from '../base/clock.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import type { StreamKind } from '../model/stream-request.ts'
import type { Log, LogFields } from '../observe/log.ts'
import type { Carrier, CarrierEvents } from './carrier.ts'

/** What a session is about. */
export type Subject = {
  readonly kind: StreamKind
  readonly podId: string
  readonly containerId?: string
  /** As it was agreed upon: `v4.channel.k8s.io`. */
  readonly protocol: string
  /** Address of the client. */
  readonly client: string
}

export type SessionOutcome =
  | 'done'
  | 'failed' // what was asked for could not be done
  | 'client-left'
  | 'protocol-error'
  | 'idle'
  | 'stopped' // with the daemon

export interface SessionObserver {
  /** Open ones of each kind, asked for when somebody looks. */
  watchSessions(count: () => Readonly<Record<StreamKind, number>>): void
  onSessionEnd(kind: StreamKind, outcome: SessionOutcome): void
}

/** What the work of a session says at its end: what could not be done, and more for the log line. */
export type SessionEnd = { readonly failure?: unknown; readonly facts?: LogFields }

export type SessionsOptions = {
  readonly log: Pick<Log, 'info' | 'warn'>
  readonly observer: SessionObserver
  /** A session without data for this long is ended; 0 never. */
  readonly idleMs: number
}

/** How often it is looked whether a session is idle or its client has vanished. */
const TICK_MS = 10_000

/** How long a client may take to fetch the rest, once it was told to go or that it failed. */
const FAREWELL_MS = 5_000

/** Twice what a client may take; the daemon has 30 s for all that it stops. */
const CLOSE_MS = 2 * FAREWELL_MS

const OUTCOMES: Partial<Record<BerthError['code'], SessionOutcome>> = {
  cancelled: 'client-left',
  deadline: 'idle',
  unavailable: 'stopped',
  invalid: 'protocol-error',
}

type Session = { readonly subject: Subject; readonly abort: AbortController; readonly ended: Promise<void> }

/** The sessions that are open: each has a signal that aborts when it has to end, and leaves one line in the log. */
export class Sessions {
  readonly #options: SessionsOptions
  readonly #open = new Set<Session>()

  constructor(options: SessionsOptions) {
    this.#options = options
    options.observer.watchSessions(() => this.counts())
  }

  counts(): Record<StreamKind, number> {
    const counts = { exec: 0, attach: 0, portforward: 0 }
    for (const { subject } of this.#open) counts[subject.kind]++
    return counts
  }

  /**
   * Runs one session to its end. Never rejects.
   *
   * @param connect takes over the client's connection
   * @param work what the session is for; aborted by its signal
   */
  async run<C extends Carrier>(
    subject: Subject,
    connect: (events: CarrierEvents, signal: AbortSignal) => C,
    work: (carrier: C, signal: AbortSignal) => Promise<SessionEnd>,
  ): Promise<void> {
    const began = performance.now()
    const abort = new AbortController()
    // Every connection of a port-forward listens to it.
    setMaxListeners(0, abort.signal)
    const over = Promise.withResolvers<void>()
    const session: Session = { subject, abort, ended: over.promise }
    this.#open.add(session)
    const carrier = connect({ onLost: why => abort.abort(why) }, abort.signal)
    const watch = this.#watch(carrier, abort)
    // Who was told to go, or that it failed, and does not read on must not stay.
    let farewell: NodeJS.Timeout | undefined
    const hurry = () => {
      farewell ??= setTimeout(() => carrier.destroy(), FAREWELL_MS)
    }
    abort.signal.addEventListener('abort', hurry, { once: true })
    let end: SessionEnd
    try {
      end = await work(carrier, abort.signal)
    } catch (failure) {
      end = { failure }
    }
    if (end.failure !== undefined) hurry()
    await carrier.finish()
    clearTimeout(farewell)
    clearInterval(watch)
    this.#open.delete(session)
    this.#report(session, carrier, end, performance.now() - began)
    over.resolve()
  }

  /** Ends all; resolves when none is left, or when what they run does not end. */
  async close(): Promise<void> {
    const why = new BerthError('unavailable', 'berth is shutting down')
    for (const { abort } of this.#open) abort.abort(why)
    const patience = new AbortController()
    const limit = sleep(CLOSE_MS, patience.signal).catch(() => undefined)
    await Promise.race([Promise.all([...this.#open].map(({ ended }) => ended)), limit])
    patience.abort()
  }

  #watch(carrier: Carrier, abort: AbortController): NodeJS.Timeout {
    const { idleMs } = this.#options
    const { traffic } = carrier
    let seen = 0
    let lastChange = performance.now()
    const look = () => {
      carrier.probe()
      const now = performance.now()
      if (traffic.in + traffic.out !== seen) {
        seen = traffic.in + traffic.out
        lastChange = now
      } else if (idleMs > 0 && now - lastChange >= idleMs) {
        abort.abort(new BerthError('deadline', `no data for ${idleMs / 1000} s`))
      }
    }
    return setInterval(look, idleMs > 0 ? Math.min(TICK_MS, idleMs / 2) : TICK_MS)
  }

  #report({ subject, abort }: Session, { traffic }: Carrier, end: SessionEnd, ms: number): void {
    const { log, observer } = this.#options
    const why = abort.signal.aborted ? abort.signal.reason : end.failure
    const outcome = outcomeOf(abort.signal, end)
    observer.onSessionEnd(subject.kind, outcome)
    const fields = {
      ...subject,
      outcome,
      bytesIn: traffic.in,
      bytesOut: traffic.out,
      ms: Math.round(ms),
      ...end.facts,
      ...(why === undefined ? {} : { error: messageOf(why) }),
    }
    if (outcome === 'failed' || outcome === 'protocol-error') log.warn(fields, 'stream session ended')
    else log.info(fields, 'stream session ended')
  }
}

function outcomeOf(signal: AbortSignal, end: SessionEnd): SessionOutcome {
  if (signal.aborted) return OUTCOMES[(signal.reason as BerthError).code] ?? 'failed'
  return end.failure === undefined ? 'done' : 'failed'
}
