/** What the daemon and an unpack worker say to one another. */
import type { Readable, Writable } from 'node:stream'
import { BerthError, type ErrorCode } from '../base/errors.ts'
import { drained } from './backpressure.ts'
import type { UnpackedLayer, UnpackLimits } from './snapshots.ts'

/** The worker's descriptor for the bytes of layers. */
export const BULK_FD = 3

export type UnpackJob = { readonly staging: string; readonly limits: UnpackLimits }

/** Where the record of a layer is that is unpacked in `staging`. */
export function recordOf(staging: string): string {
  return `${staging}.record`
}

export type UnpackReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly layer: UnpackedLayer; readonly warning: string | undefined }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string }

const LENGTH_BYTES = 4

/**
 * Writes everything of `source` as frames: a length (32 bits, little endian) and as many bytes; length 0 ends the
 * run. Returns early when `sink` is closed.
 */
export async function writeFrames(source: AsyncIterable<Buffer>, sink: Writable): Promise<void> {
  for await (const chunk of source) {
    if (chunk.length === 0) continue
    if (sink.destroyed) return
    sink.cork()
    sink.write(frameLength(chunk.length))
    const takesMore = sink.write(chunk)
    sink.uncork()
    if (!takesMore) await drained(sink)
  }
  if (!sink.destroyed) sink.write(frameLength(0))
}

export function frameLength(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES)
  bytes.writeUInt32LE(length)
  return bytes
}

/** The other end: one run of frames after the other from one stream. */
export class FrameReader {
  readonly #input: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(input: Readable) {
    this.#input = input[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** The bytes of the next run, in pieces as they arrive. */
  async *run(): AsyncGenerator<Buffer> {
    for (;;) {
      while (this.#rest.length < LENGTH_BYTES) this.#rest = Buffer.concat([this.#rest, await this.#more()])
      let left = this.#rest.readUInt32LE()
      this.#rest = this.#rest.subarray(LENGTH_BYTES)
      if (left === 0) return
      while (left > 0) {
        if (this.#rest.length === 0) this.#rest = await this.#more()
        const piece = this.#rest.subarray(0, left)
        this.#rest = this.#rest.subarray(piece.length)
        left -= piece.length
        yield piece
      }
    }
  }

  async #more(): Promise<Buffer> {
    const next = await this.#input.next()
    if (next.done === true) throw new BerthError('cancelled', 'the daemon has closed the connection')
    return next.value
  }
}
