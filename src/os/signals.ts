import { constants } from 'node:os'

/** The kernel's number of a signal: 15 for `SIGTERM`. */
export function signalNumber(signal: NodeJS.Signals | number): number {
  return typeof signal === 'number' ? signal : constants.signals[signal]
}

/** One number for how a process ended: its exit code, or 128 + signal. */
export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return signal === null ? (code ?? 255) : 128 + signalNumber(signal)
}
