/** Wall-clock nanoseconds since 1970, as the CRI wants its timestamps: beyond 2⁵³, hence bigint. */
export function nowNs(): bigint {
  return offset + process.hrtime.bigint()
}

// The monotonic clock gives the resolution; the offset is taken again every minute, so that a stepped wall clock shows.
let offset = wallOffset()
setInterval(() => {
  offset = wallOffset()
}, 60_000).unref()

function wallOffset(): bigint {
  return BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint()
}

/** ms, 24 days: a timer that is set to more than 31 bits fires at once. */
export const LONGEST_TIMER = 2 ** 31 - 1

/** Resolves after `ms`, or after the longest a timer can take; or rejects with the signal's reason. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  if (signal?.aborted === true) {
    reject(signal.reason)
    return promise
  }
  const stop = () => {
    clearTimeout(timer)
    reject(signal?.reason)
  }
  const timer = setTimeout(
    () => {
      signal?.removeEventListener('abort', stop)
      resolve()
    },
    Math.min(ms, LONGEST_TIMER),
  )
  signal?.addEventListener('abort', stop, { once: true })
  return promise
}
