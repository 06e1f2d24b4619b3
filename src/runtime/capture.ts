import type { Readable } from 'node:stream'

/** Bytes that several captures may keep together. */
export class OutputBudget {
  #left: number

  constructor(bytes: number) {
    this.#left = bytes
  }

  /** @returns how many of them may be kept */
  take(bytes: number): number {
    const granted = Math.min(bytes, this.#left)
    this.#left -= granted
    return granted
  }

  giveBack(bytes: number): void {
    this.#left += bytes
  }
}

/** Reads a stream to its end, keeps the first `limit` bytes and drops the rest: the writer is never held up. */
export class Capture {
  /** Resolves at the end of the stream, also at an error or when it was closed here. */
  readonly ended: Promise<void>
  readonly #stream: Readable
  readonly #chunks: Buffer[] = []
  readonly #budget: OutputBudget | undefined
  #room: number
  #kept = 0

  /** @param budget what it keeps is taken from there until it is closed */
  constructor(stream: Readable, limit: number, budget?: OutputBudget) {
    this.#stream = stream
    this.#room = limit
    this.#budget = budget
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    stream.on('data', (chunk: Buffer) => this.#keep(chunk))
    stream.on('error', () => undefined)
    stream.on('close', () => resolve())
    if (stream.destroyed) resolve() // an empty one may have ended before anybody read it
  }

  #keep(chunk: Buffer): void {
    const wanted = Math.min(chunk.length, this.#room)
    const length = this.#budget?.take(wanted) ?? wanted
    if (length <= 0) return
    this.#chunks.push(length === chunk.length ? chunk : Buffer.from(chunk.subarray(0, length)))
    this.#room -= length
    this.#kept += length
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  close(): void {
    this.#budget?.giveBack(this.#kept)
    this.#kept = 0
    this.#room = 0
    this.#stream.destroy()
  }
}
