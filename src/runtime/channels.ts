import type { Readable, Writable } from 'node:stream'

/** In character cells. */
export type TerminalSize = { readonly width: number; readonly height: number }

/** One client's ends of an exec or an attach. What the client did not ask for is undefined. */
export type Channels = {
  /** Its end is the client's half-close. */
  readonly stdin: Readable | undefined
  /** Ended by whoever writes it, once there is nothing more to come. */
  readonly stdout: Writable | undefined
  /** Never together with a terminal. */
  readonly stderr: Writable | undefined
  /** Called for each size that the client announces, the last known one at once; both numbers are 1 or more. */
  readonly onResize: (listener: (size: TerminalSize) => void) => void
}
