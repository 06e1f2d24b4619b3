import { collectChunks } from '../base/collect-chunks.ts'
import type { Descriptor } from './manifest.ts'
import { Failure, foreignText, publicUrl } from './transport/failure.ts'
import type { HttpResponse } from './transport/http.ts'
import { afterTries, pause, type RetryPolicy } from './transport/retry.ts'

/** Where a blob's bytes may come from. `open` answers with status 200, 206 or 416. */
export type BlobSource = {
  /** `host[:port]`, for the log. */
  readonly name: string
  open(headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<HttpResponse>
}

/** Bytes of a blob that are still to come: from `at` to before `end`. */
export type Stretch = {
  at: number
  /** Moves to the end of the blob when a server that knows no ranges sends everything. */
  end: number
}

export type SourceOptions = {
  readonly retry: RetryPolicy
  /** Makes one error of what every source failed with. */
  readonly error: (failures: readonly Failure[]) => Error
  /** Told of each failure that another try comes after. */
  readonly onTrouble: () => void
  /** Told of bytes as they come. */
  readonly onReceived: (bytes: number) => void
}

/** Of one blob: a line that breaks every 100 MB still gets 10 GB through. */
const MAX_RESUMPTIONS = 100

/**
 * A blob's sources, for all its stretches: one that fails is left by all of them, and only the last is tried again
 * with pauses. A connection that breaks is resumed at its offset.
 */
export class BlobSources {
  readonly #descriptor: Descriptor
  readonly #sources: readonly BlobSource[]
  readonly #options: SourceOptions
  readonly #failures: Failure[] = []
  #resumptions = 0

  constructor(descriptor: Descriptor, sources: readonly BlobSource[], options: SourceOptions) {
    this.#descriptor = descriptor
    this.#sources = sources
    this.#options = options
  }

  /** The one that is asked now: as many have failed as stand before it. */
  get current(): BlobSource | undefined {
    return this.#sources[this.#failures.length]
  }

  /** The bytes of a stretch in order, which moves on with them. Throws unless all of them came. */
  async *fetch(stretch: Stretch, signal: AbortSignal): AsyncGenerator<Buffer> {
    for (let tries = 1; stretch.at < stretch.end; tries++) {
      const source = this.current
      if (source === undefined) throw this.#options.error(this.#failures)
      const before = stretch.at
      try {
        yield* this.#open(source, stretch, signal)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        if (stretch.at === stretch.end) {
          // Only the end of the answer is missing; but one that goes on after its end is about something else.
          if (error.kind === 'unavailable') return
          throw this.#options.error([...this.#failures, error])
        }
        this.#options.onTrouble()
        // What another stretch has found out about this source already is not worth a pause.
        if (source !== this.current) {
          tries = 0
          continue
        }
        const isWorthATry = error.kind === 'unavailable' && this.#mayRetry(stretch.at > before)
        if (stretch.at > before) tries = 0
        if (!isWorthATry || tries >= this.#options.retry.tries) {
          this.#failures.push(isWorthATry ? afterTries(error, tries) : error)
          tries = 0
        } else {
          await pause(this.#options.retry, tries, error, signal)
        }
      }
    }
  }

  #mayRetry(hasProgressed: boolean): boolean {
    if (hasProgressed) return ++this.#resumptions <= MAX_RESUMPTIONS
    return this.#failures.length === this.#sources.length - 1
  }

  /** What is missing of the stretch, in one response. */
  async *#open(source: BlobSource, stretch: Stretch, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { size } = this.#descriptor
    let response = await source.open(headersFor(stretch, size), signal)
    if (response.status === 416) {
      await response.discard()
      response = await source.open(headersFor({ at: 0, end: size }, size), signal)
    }
    let skip = await skipOf(response, stretch, size)
    for await (const received of response.chunks()) {
      const chunk = received.subarray(Math.min(skip, received.length))
      skip -= received.length - chunk.length
      if (stretch.at + chunk.length > stretch.end) {
        throw new Failure(
          'content',
          `${publicUrl(response.url)}: more than the ${size} bytes that the manifest says`,
        )
      }
      stretch.at += chunk.length
      this.#options.onReceived(chunk.length)
      collectChunks(received.length)
      if (chunk.length > 0) yield chunk
    }
    if (stretch.at < stretch.end) {
      throw new Failure(
        'unavailable',
        `${publicUrl(response.url)}: ended after ${stretch.at} of ${size} bytes`,
      )
    }
  }
}

function headersFor({ at, end }: Stretch, size: number): Readonly<Record<string, string>> {
  // Offsets mean bytes of the blob, so nobody may compress it on the way.
  const identity = { 'accept-encoding': 'identity' }
  if (at === 0 && end === size) return identity
  return { ...identity, range: `bytes=${at}-${end === size ? '' : end - 1}` }
}

/**
 * How many bytes at the beginning of the body are known already.
 *
 * @throws Failure `content` if the answer is about other bytes
 */
async function skipOf(response: HttpResponse, stretch: Stretch, size: number): Promise<number> {
  if (response.status === 200) stretch.end = size
  const wrong = mismatch(response, stretch, size)
  if (wrong === undefined) return response.status === 206 ? 0 : stretch.at
  // A body that nobody reads would hold its connection for ever.
  await response.discard()
  throw new Failure('content', `${publicUrl(response.url)}: ${wrong}`)
}

function mismatch({ status, headers }: HttpResponse, { at, end }: Stretch, size: number): string | undefined {
  const encoding = headers.get('content-encoding') ?? 'identity'
  if (encoding !== 'identity') return `sent with Content-Encoding ${shown(encoding)}`
  const isPartial = status === 206
  if (!isPartial && status !== 200) return `${status} to a request for everything`
  if (isPartial) {
    const range = headers.get('content-range') ?? ''
    const [, start, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range) ?? []
    if (Number(start) !== at || Number(last) !== end - 1 || !(total === '*' || Number(total) === size)) {
      return `asked for bytes ${at}-${end === size ? '' : end - 1} of ${size}, got ${shown(range)}`
    }
  }
  const length = headers.get('content-length')
  const expected = isPartial ? end - at : size
  if (length === undefined || Number(length) === expected) return undefined
  return `announces ${foreignText(length)} bytes; expected ${expected} by the manifest`
}

function shown(header: string): string {
  return JSON.stringify(foreignText(header))
}
