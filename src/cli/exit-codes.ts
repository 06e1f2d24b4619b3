import { BerthError } from '../base/errors.ts'

/** Exit codes of every command, as in berth(8). */
export const OK = 0
export const FAILURE = 1
export const USAGE = 2
const UNREACHABLE = 3
/** What was compared is not the same. */
export const DIFFERENCES = 4

/** Nobody answered at the daemon's socket. What a daemon answers is another error, whatever its code. */
export class UnreachableError extends BerthError {
  constructor(cause: Error) {
    super('unavailable', cause.message, cause)
  }
}

export function exitCodeOf(error: unknown): number {
  return error instanceof UnreachableError ? UNREACHABLE : FAILURE
}
