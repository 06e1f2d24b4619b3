import type { Duplex } from 'node:stream'

/** Control frames (pongs, resets) that may wait behind data for a client that sends and does not read. */
const MAX_CONTROL_BACKLOG = 256 * 1024

/** How reading from the client is stopped and taken up again. */
export type Reading = { pause(): void; resume(): void }

/**
 * Backpressure of many channels over one socket, which is all that there is: Go's clients know no windows. What is
 * written waits for the socket, one channel after the other; while the reader of any channel is full, nothing more
 * is read from the socket.
 */
export class Flow {
  readonly #socket: Duplex
  readonly #reading: Reading
  readonly #waiting: Array<() => void> = []
  readonly #holders = new Set<object>()

  constructor(socket: Duplex, reading: Reading) {
    this.#socket = socket
    this.#reading = reading
    socket.on('drain', () => this.#drained())
  }

  /** Nothing is read from the client for now. */
  get held(): boolean {
    return this.#holders.size > 0
  }

  /** Calls `go` when what was written last has room behind it, in the order of asking; at once if there is room. */
  afterWrite(go: () => void): void {
    if (this.#waiting.length === 0 && !this.#socket.writableNeedDrain) go()
    else this.#waiting.push(go)
  }

  /** Control frames are not gated; a client that provokes them and reads none is no longer listened to. */
  afterControl(): void {
    if (this.#socket.writableLength > MAX_CONTROL_BACKLOG) this.hold(this)
  }

  hold(holder: object): void {
    this.#holders.add(holder)
    if (this.#holders.size === 1) this.#reading.pause()
  }

  release(holder: object): void {
    if (this.#holders.delete(holder) && this.#holders.size === 0) this.#reading.resume()
  }

  /** The socket is gone: whoever waits is let go, and finds out by its next write. */
  close(): void {
    for (let go = this.#waiting.shift(); go !== undefined; go = this.#waiting.shift()) go()
  }

  #drained(): void {
    this.release(this)
    while (!this.#socket.writableNeedDrain) {
      const go = this.#waiting.shift()
      if (go === undefined) break
      go()
    }
  }
}
