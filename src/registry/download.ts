import { Readable } from 'node:stream'
import type { Descriptor } from './manifest.ts'
import { Failure, publicUrl } from './transport/failure.ts'
import { aborted, type HttpResponse } from './transport/http.ts'
import { afterTries, pause, type RetryPolicy } from './transport/retry.ts'

/** Where a blob's bytes may come from. `open` answers with status 200, 206 or 416. */
export type BlobSource = {
  open(headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<HttpResponse>
}

export type DownloadOptions = {
  readonly retry: RetryPolicy
  readonly signal: AbortSignal
  /** Told how many bytes have come so far. */
  readonly onBytes: ((total: number) => void) | undefined
  /** Makes the stream's error of what every source failed with. */
  readonly error: (failures: readonly Failure[]) => Error
}

/** Of one blob: a line that breaks every 100 MB still gets 10 GB through. */
const MAX_RESUMPTIONS = 100

/** Between the network and the one who unpacks. */
const HIGH_WATER_MARK = 1 << 20

/**
 * The bytes of a blob in order, from the first source that has them. A connection that breaks is resumed at its
 * offset; a source that gives nothing more is left for the next, and only the last is tried again with pauses. The
 * stream errors unless exactly `descriptor.size` bytes came. Its digest is the reader's to check.
 */
export function download(
  descriptor: Descriptor,
  sources: readonly BlobSource[],
  options: DownloadOptions,
): Readable {
  return readableOf(options.signal, signal =>
    new Download(descriptor, sources, { ...options, signal }).chunks(),
  )
}

class Download {
  readonly #descriptor: Descriptor
  readonly #sources: readonly BlobSource[]
  readonly #options: DownloadOptions
  /** How many bytes have been handed on. */
  #offset = 0
  #resumptions = 0

  constructor(descriptor: Descriptor, sources: readonly BlobSource[], options: DownloadOptions) {
    this.#descriptor = descriptor
    this.#sources = sources
    this.#options = options
  }

  async *chunks(): AsyncGenerator<Buffer> {
    const failures: Failure[] = []
    for (const [index, source] of this.#sources.entries()) {
      const failure = yield* this.#from(source, index === this.#sources.length - 1)
      if (failure === undefined) return
      failures.push(failure)
    }
    throw this.#options.error(failures)
  }

  /** @returns why the source was left, undefined when the blob is complete */
  async *#from(source: BlobSource, isLast: boolean): AsyncGenerator<Buffer, Failure | undefined> {
    const { retry, signal, onBytes } = this.#options
    for (let tries = 1; ; tries++) {
      const before = this.#offset
      try {
        for await (const chunk of this.#open(source)) {
          this.#offset += chunk.length
          onBytes?.(this.#offset)
          yield chunk
        }
        return undefined
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        const hasProgressed = this.#offset > before
        if (error.kind !== 'unavailable') return error
        if (hasProgressed ? ++this.#resumptions > MAX_RESUMPTIONS : !isLast) return error
        if (hasProgressed) tries = 0
        if (tries >= retry.tries) return afterTries(error, tries)
        await pause(retry, tries, error, signal)
      }
    }
  }

  /** What is missing, in one response. */
  async *#open(source: BlobSource): AsyncGenerator<Buffer> {
    const { size } = this.#descriptor
    let response = await source.open(this.#headers(this.#offset), this.#options.signal)
    if (response.status === 416) {
      await response.discard()
      response = await source.open(this.#headers(0), this.#options.signal)
    }
    let skip = skipOf(response, this.#offset, size)
    let rest = size - this.#offset
    for await (const received of response.chunks()) {
      const chunk = received.subarray(Math.min(skip, received.length))
      skip -= received.length - chunk.length
      rest -= chunk.length
      if (rest < 0)
        throw new Failure(
          'content',
          `${publicUrl(response.url)}: more than the ${size} bytes that the manifest says`,
        )
      if (chunk.length > 0) yield chunk
    }
    if (rest > 0) {
      throw new Failure(
        'unavailable',
        `${publicUrl(response.url)}: ended after ${size - rest} of ${size} bytes`,
      )
    }
  }

  #headers(offset: number): Readonly<Record<string, string>> {
    // Offsets mean bytes of the blob, so nobody may compress it on the way.
    const identity = { 'accept-encoding': 'identity' }
    return offset === 0 ? identity : { ...identity, range: `bytes=${offset}-` }
  }
}

/**
 * How many bytes at the beginning of the body are known already.
 *
 * @throws Failure `content` if the answer is about other bytes
 */
function skipOf(response: HttpResponse, offset: number, size: number): number {
  const where = publicUrl(response.url)
  const encoding = response.headers.get('content-encoding') ?? 'identity'
  if (encoding !== 'identity')
    throw new Failure('content', `${where}: sent with Content-Encoding ${JSON.stringify(encoding)}`)
  const isPartial = response.status === 206
  if (!isPartial && response.status !== 200)
    throw new Failure('content', `${where}: ${response.status} to a request for everything`)
  if (isPartial) {
    const range = response.headers.get('content-range') ?? ''
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range) ?? []
    if (Number(start) !== offset || !(total === '*' || Number(total) === size)) {
      throw new Failure(
        'content',
        `${where}: asked for bytes ${offset}- of ${size}, got ${JSON.stringify(range)}`,
      )
    }
  }
  const length = response.headers.get('content-length')
  const expected = isPartial ? size - offset : size
  if (length !== undefined && Number(length) !== expected) {
    throw new Failure('content', `${where}: announces ${length} bytes; expected ${expected} by the manifest`)
  }
  return isPartial ? 0 : offset
}

/**
 * A stream of what `produce` yields. Unlike Readable.from, destroying it aborts what the generator waits for.
 */
function readableOf(signal: AbortSignal, produce: (signal: AbortSignal) => AsyncIterable<Buffer>): Readable {
  const abort = new AbortController()
  const both = AbortSignal.any([signal, abort.signal])
  let wake: () => void = () => undefined
  const stream = new Readable({
    highWaterMark: HIGH_WATER_MARK,
    read: () => wake(),
    destroy(error, done) {
      signal.removeEventListener('abort', onAbort)
      abort.abort()
      wake()
      done(error)
    },
  })
  const onAbort = () => stream.destroy(aborted(signal))
  signal.addEventListener('abort', onAbort, { once: true })
  const pump = async () => {
    signal.throwIfAborted()
    for await (const chunk of produce(both)) {
      if (stream.push(chunk)) continue
      await new Promise<void>(resolve => {
        wake = resolve
      })
      if (stream.destroyed) return
    }
    stream.push(null)
  }
  pump().catch(error => stream.destroy(aborted(signal) ?? error))
  return stream
}
