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
export type Sniffed = { readonly format: Format; readonly bytes: AsyncIterable<Buffer> }

/** Decompresses gzip: Node's own zlib, or a program. */
export type Gunzip = (source: AsyncIterable<Buffer>, output: (chunk: Buffer) => void) => Promise<void>

/** Tells the compression by the first bytes. */
export async function sniff(source: AsyncIterable<Buffer>): Promise<Sniffed> {
  const pieces = withWholeMagic(source)[Symbol.asyncIterator]()
  const first = await pieces.next()
  const rest = { [Symbol.asyncIterator]: () => pieces }
  if (first.done === true) return { format: 'plain', bytes: rest } // an empty layer, as some builders write them
  const magic = first.value.subarray(0, MAGIC_LENGTH)
  const isGzip = magic[0] === 0x1f && magic[1] === 0x8b && magic[2] === 8
  const format = isGzip ? 'gzip' : isZstdMagic(magic) ? 'zstd' : 'plain'
  return { format, bytes: startingWith(first.value, rest) }
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

/** The same bytes; the first piece has all of the magic number, if there are so many bytes. */
async function* withWholeMagic(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer | undefined = Buffer.alloc(0)
  for await (const chunk of source) {
    if (head === undefined) {
      yield chunk
      continue
    }
    head = Buffer.concat([head, chunk])
    if (head.length < MAGIC_LENGTH) continue
    yield head
    head = undefined
  }
  if (head !== undefined && head.length > 0) yield head
}

async function* startingWith(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield first
  yield* rest
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
