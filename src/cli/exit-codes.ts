import { isCode } from '../base/errors.ts'

/** Exit codes of every command, as in berth(8). */
export const OK = 0
export const FAILURE = 1
export const USAGE = 2
const UNREACHABLE = 3

export function exitCodeOf(error: unknown): number {
  return isCode(error, 'unavailable') ? UNREACHABLE : FAILURE
}
