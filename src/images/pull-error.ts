import { BerthError, type ErrorCode, messageOf } from '../base/errors.ts'

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
