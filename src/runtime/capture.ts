import type { Readable } from 'node:stream'

/** Reads a stream to its end, keeps the first `limit` bytes and drops the rest: the writer is never held up. */
export class Capture {
  /** Resolves at the end of the stream, also at an error or when it was closed here. */
  readonly ended: Promise<void>
  readonly #stream: Readable
  readonly #chunks: Buffer[] = []
  #room: number

  constructor(stream: Readable, limit: number) {
    this.#stream = stream
    this.#room = limit
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    stream.on('data', (chunk: Buffer) => this.#keep(chunk))
    stream.on('error', () => undefined)
    stream.on('close', () => resolve())
    if (stream.destroyed) resolve() // an empty one may have ended before anybody read it
  }

  #keep(chunk: Buffer): void {
    if (this.#room <= 0) return
    this.#chunks.push(chunk.length <= this.#room ? chunk : Buffer.from(chunk.subarray(0, this.#room)))
    this.#room -= chunk.length
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  close(): void {
    this.#stream.destroy()
  }
}
