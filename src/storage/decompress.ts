import { createGunzip, createZstdDecompress } from 'node:zlib'
import { BerthError, messageOf } from '../base/errors.ts'
import { drained } from './backpressure.ts'
import { isZstdMagic, ZstdFrames } from './zstd-frames.ts'

// Node inflates twice as fast in pieces of 256 KiB as in its default of 16 KiB. Four of them may be ahead of the
// consumer, which works on one thread while the decompressor works on another.
const CHUNK = 256 * 1024
const OPTIONS = { chunkSize: CHUNK, highWaterMark: 4 * CHUNK }
const MAGIC_LENGTH = 4

export type Format = 'gzip' | 'zstd' | 'plain'

/** A blob whose compression is known; its bytes can be read once. */
export type Sniffed = {
  readonly format: Format
  readonly bytes: AsyncIterable<Buffer>
  /** It has fewer bytes than were asked for. */
  readonly isSmall: boolean
}

/** Decompresses gzip: Node's own zlib, or a program. */
export type Gunzip = (source: AsyncIterable<Buffer>, output: (chunk: Buffer) => void) => Promise<void>

/**
 * Tells the compression by the first bytes.
 * @param least bytes that are read ahead, if there are so many, to tell a small blob from a large one
 */
export async function sniff(source: AsyncIterable<Buffer>, least = MAGIC_LENGTH): Promise<Sniffed> {
  const pieces = source[Symbol.asyncIterator]()
  const head: Buffer[] = []
  let length = 0
  while (length < Math.max(least, MAGIC_LENGTH)) {
    const next = await pieces.next()
    if (next.done === true) break
    if (next.value.length === 0) continue
    head.push(next.value)
    length += next.value.length
  }
  const magic = Buffer.concat(head.slice(0, MAGIC_LENGTH)).subarray(0, MAGIC_LENGTH)
  const isGzip = magic[0] === 0x1f && magic[1] === 0x8b && magic[2] === 8
  const format = isGzip ? 'gzip' : isZstdMagic(magic) ? 'zstd' : 'plain'
  return { format, bytes: startingWith(head, pieces), isSmall: length < least }
}

async function* startingWith(head: readonly Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield* head
  yield* { [Symbol.asyncIterator]: () => rest }
}

/**
 * Gives `output` the decompressed bytes of a layer: gzip, zstd, or neither. Members and frames may follow one another;
 * zeros after a gzip member end the data. Reads the blob to its end in any case.
 * @throws BerthError invalid for damaged data; whatever the source or `output` throws
 */
export async function decompress(
  { format, bytes }: Sniffed,
  output: (chunk: Buffer) => void,
  gunzip: Gunzip = gunzipHere,
): Promise<void> {
  if (format === 'gzip') await gunzip(bytes, output)
  else if (format === 'zstd') await through('zstd', createZstdDecompress(OPTIONS), frames(bytes), output)
  else for await (const chunk of bytes) output(chunk)
}

function gunzipHere(source: AsyncIterable<Buffer>, output: (chunk: Buffer) => void): Promise<void> {
  return through('gzip', createGunzip(OPTIONS), source, output)
}

async function* frames(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const splitter = new ZstdFrames()
  for await (const chunk of source) yield* splitter.push(chunk)
  splitter.end()
}

type Decompressor = ReturnType<typeof createGunzip | typeof createZstdDecompress>

async function through(
  format: string,
  stream: Decompressor,
  source: AsyncIterable<Buffer>,
  output: (chunk: Buffer) => void,
): Promise<void> {
  const failed = (error: unknown) => {
    if ((error as { errno?: unknown }).errno === undefined) throw error // ours, or the consumer's
    throw new BerthError('invalid', `${format}: ${messageOf(error)}`, error)
  }
  // Destroys the stream at the end, also when it ends before the source does.
  const reading = async () => {
    for await (const chunk of stream) output(chunk as Buffer)
  }
  const writing = async () => {
    for await (const chunk of source) {
      if (!stream.destroyed && !stream.write(chunk)) await drained(stream)
    }
    if (!stream.destroyed) stream.end()
  }
  try {
    await Promise.all([reading().catch(failed), writing()])
  } finally {
    stream.destroy()
  }
}
