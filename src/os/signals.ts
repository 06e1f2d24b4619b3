import { constants } from 'node:os'

/** The kernel's number of a signal: 15 for `SIGTERM`. */
export function signalNumber(signal: NodeJS.Signals | number): number {
  return typeof signal === 'number' ? signal : constants.signals[signal]
}

/** One number for how a process ended: its exit code, or 128 + signal. */
export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return signal === null ? (code ?? 255) : 128 + signalNumber(signal)
}

// The kernel's first real-time signals that programs may use; the C library keeps two below for itself.
const SIGRTMIN = 34
const SIGRTMAX = 64

/** A signal as images and users write it: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`. undefined if it is none. */
export function parseSignal(text: string): number | undefined {
  const name = text.trim().toUpperCase()
  if (/^[0-9]{1,2}$/.test(name)) return inRange(Number(name), 1)
  const realTime = /^(?:SIG)?RTM(IN|AX)(?:([+-])([0-9]{1,2}))?$/.exec(name)
  if (realTime !== null) {
    const offset = Number(`${realTime[2] ?? '+'}${realTime[3] ?? '0'}`)
    return inRange((realTime[1] === 'IN' ? SIGRTMIN : SIGRTMAX) + offset, SIGRTMIN)
  }
  const full = name.startsWith('SIG') ? name : `SIG${name}`
  return Object.entries(constants.signals).find(([signal]) => signal === full)?.[1]
}

function inRange(number: number, lowest: number): number | undefined {
  return number >= lowest && number <= SIGRTMAX ? number : undefined
}
