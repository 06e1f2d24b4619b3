import { sleep } from '../../base/clock.ts'
import { Failure } from './failure.ts'

export type RetryPolicy = {
  /** Attempts in all. */
  readonly tries: number
  /** Pause after the first failure; it doubles each time. */
  readonly baseMs: number
  /** No pause is longer, whatever Retry-After says: kubelet's own back-off is the place for longer ones. */
  readonly maxMs: number
}

export const DEFAULT_RETRY: RetryPolicy = { tries: 5, baseMs: 500, maxMs: 60_000 }

/** Repeats what fails as `unavailable`. The last failure is thrown, saying how often it was tried. */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof Failure) || error.kind !== 'unavailable') throw error
      if (tries >= policy.tries) throw afterTries(error, tries)
      await pause(policy, tries, error, signal)
    }
  }
}

/** Waits before the next try, after `tries` in vain. */
export function pause(
  policy: RetryPolicy,
  tries: number,
  failure: Failure,
  signal: AbortSignal,
): Promise<void> {
  const backoff = policy.baseMs * 2 ** Math.max(0, tries - 1)
  // Half of it is random, so that the nodes that failed together don't come back together.
  const jittered = backoff / 2 + (Math.random() * backoff) / 2
  return sleep(Math.min(policy.maxMs, Math.max(jittered, failure.retryAfterMs ?? 0)), signal)
}

export function afterTries(failure: Failure, tries: number): Failure {
  if (tries === 1) return failure
  return new Failure(failure.kind, `${failure.message} (${tries} tries)`, { cause: failure })
}

/** RFC 9110, 10.2.3: seconds or a date. In milliseconds, undefined if it says nothing. */
export function parseRetryAfter(value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
