/** ns; less is what two looks at two clocks may differ by. */
const STEP_NS = 1_000_000_000n

/**
 * Wall-clock nanoseconds since 1970, as the CRI wants its timestamps: beyond 2⁵³, hence bigint. The monotonic clock
 * gives the resolution; a step of the wall clock shows at once.
 */
export function nowNs(): bigint {
  const wall = BigInt(Date.now()) * 1_000_000n
  const now = offset + process.hrtime.bigint()
  if (now - wall < STEP_NS && wall - now < STEP_NS) return now
  offset = wallOffset()
  return offset + process.hrtime.bigint()
}

export function latest(first: bigint, ...others: readonly bigint[]): bigint {
  let found = first
  for (const time of others) if (time > found) found = time
  return found
}

/**
 * Now, but later than all of these. Clients take the object that was made last for the present one; after the wall
 * clock was set back it would be an old one, which they would replace for ever.
 */
export function nowAfter(earlier: Iterable<bigint>): bigint {
  let now = nowNs()
  for (const time of earlier) if (time >= now) now = time + 1n
  return now
}

// Taken again every minute: the clocks drift apart where the wall clock is being slewed.
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
