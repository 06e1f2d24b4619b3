import { BerthError, type ErrorCode, messageOf } from '../base/errors.ts'
import { Failure } from '../registry/transport/failure.ts'
import { REFUSED } from './policy/policies.ts'

/** Errors with these codes say already what they are about. */
const COMPLETE: ReadonlySet<ErrorCode> = new Set(['unknown', 'not-found', 'cancelled', 'unavailable'])

/**
 * The error of a failed pull. kubelet reads the message only, and its beginning as the kind of failure, so one that
 * is complete stays as it is.
 * @param where the reference, and the part of the image if it is about one
 */
export function asPullError(where: string, error: unknown): BerthError {
  if (error instanceof BerthError && COMPLETE.has(error.code)) return error
  return new BerthError('unknown', `${where}: ${messageOf(error)}`, error)
}

/** Why pulls fail, in few words that a metric can have as a label. */
export type PullFailure =
  | 'cancelled'
  | 'registry-unavailable'
  | 'not-found'
  | 'denied'
  | 'refused'
  | 'content'
  | 'policy'
  | 'limit-or-disk-full'
  | 'invalid'
  | 'other'

export function causeOf(error: unknown): PullFailure {
  if (messageOf(error).startsWith(REFUSED)) return 'policy'
  const failure = failureIn(error)
  if (failure !== undefined) return failure.kind === 'unavailable' ? 'registry-unavailable' : failure.kind
  const code = codeIn(error)
  if (code === 'cancelled' || code === 'unavailable') return 'cancelled'
  if (code === 'exhausted') return 'limit-or-disk-full'
  return code === 'not-found' || code === 'invalid' ? code : 'other'
}

function failureIn(error: unknown): Failure | undefined {
  if (error instanceof Failure) return error
  return error instanceof Error && error.cause !== undefined ? failureIn(error.cause) : undefined
}

/** The innermost one, which says most; `unknown` says nothing. */
function codeIn(error: unknown): ErrorCode | undefined {
  if (!(error instanceof Error)) return undefined
  const inner = codeIn(error.cause)
  return inner ?? (error instanceof BerthError && error.code !== 'unknown' ? error.code : undefined)
}
