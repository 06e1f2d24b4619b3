import { Readable } from 'node:stream'
import type { Descriptor } from './manifest.ts'
import { Failure, foreignText, publicUrl } from './transport/failure.ts'
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
  return new DownloadStream(options.signal, signal =>
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
    let skip = await skipOf(response, this.#offset, size)
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
async function skipOf(response: HttpResponse, offset: number, size: number): Promise<number> {
  const wrong = mismatch(response, offset, size)
  if (wrong === undefined) return response.status === 206 ? 0 : offset
  // A body that nobody reads would hold its connection for ever.
  await response.discard()
  throw new Failure('content', `${publicUrl(response.url)}: ${wrong}`)
}

function mismatch({ status, headers }: HttpResponse, offset: number, size: number): string | undefined {
  const encoding = headers.get('content-encoding') ?? 'identity'
  if (encoding !== 'identity') return `sent with Content-Encoding ${shown(encoding)}`
  const isPartial = status === 206
  if (!isPartial && status !== 200) return `${status} to a request for everything`
  if (isPartial) {
    const range = headers.get('content-range') ?? ''
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range) ?? []
    if (Number(start) !== offset || !(total === '*' || Number(total) === size)) {
      return `asked for bytes ${offset}- of ${size}, got ${shown(range)}`
    }
  }
  const length = headers.get('content-length')
  const expected = isPartial ? size - offset : size
  if (length === undefined || Number(length) === expected) return undefined
  return `announces ${foreignText(length)} bytes; expected ${expected} by the manifest`
}

function shown(header: string): string {
  return JSON.stringify(foreignText(header))
}

/** What the generator yields. It begins when the stream is first read; dropping the stream aborts what it waits for. */
class DownloadStream extends Readable {
  readonly #caller: AbortSignal
  readonly #abort = new AbortController()
  readonly #chunks: AsyncGenerator<Buffer>
  readonly #onAbort = () => {
    this.destroy(aborted(this.#caller))
  }

  constructor(caller: AbortSignal, produce: (signal: AbortSignal) => AsyncGenerator<Buffer>) {
    super({ highWaterMark: HIGH_WATER_MARK })
    this.#caller = caller
    this.#chunks = produce(AbortSignal.any([caller, this.#abort.signal]))
    caller.addEventListener('abort', this.#onAbort, { once: true })
    // Whoever reads after a failure is told of it then; until somebody does, it must not end the process.
    this.on('error', () => undefined)
  }

  override _read(): void {
    this.#chunks.next().then(
      ({ done, value }) => {
        if (!this.destroyed) this.push(done === true ? null : value)
      },
      error => this.destroy(aborted(this.#caller) ?? error),
    )
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#caller.removeEventListener('abort', this.#onAbort)
    this.#abort.abort()
    this.#chunks.return(undefined).catch(() => undefined)
    done(error)
  }
}
