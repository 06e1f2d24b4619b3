import { Readable } from 'node:stream'
import { type BlobSource, BlobSources, type Stretch } from './blob-sources.ts'
import type { Descriptor } from './manifest.ts'
import type { BlobStream, BlobTraffic, PartialBlob } from './registry.ts'
import type { Failure } from './transport/failure.ts'
import { aborted } from './transport/http.ts'
import type { RetryPolicy } from './transport/retry.ts'

export type RangeOptions = {
  /** Bytes of one request for a part of a blob; smaller blobs come in one piece. */
  readonly chunkSize: number
  /** Requests for one blob at the same time, at most; 1: never ask for parts. */
  readonly connections: number
  /** Shared by all blobs: what may be on its way ahead of its turn. */
  readonly ahead: Allowance
}

/** So many at once; who finds none left does without. */
export class Allowance {
  #left: number

  constructor(limit: number) {
    this.#left = limit
  }

  take(): boolean {
    if (this.#left === 0) return false
    this.#left--
    return true
  }

  give(): void {
    this.#left++
  }
}

export type DownloadOptions = {
  readonly retry: RetryPolicy
  readonly signal: AbortSignal
  readonly ranges: RangeOptions
  /** Told how many bytes have been handed on so far. */
  readonly onBytes: ((total: number) => void) | undefined
  readonly partial: PartialBlob | undefined
  /** Makes the stream's error of what every source failed with. */
  readonly error: (failures: readonly Failure[]) => Error
}

/** Between the network and the one who unpacks. */
const HIGH_WATER_MARK = 1 << 20

/** Why requests are broken off; made once, since an exception costs its stack. */
const NOT_WANTED = new Error('the bytes are not wanted any more')

/** A further connection is opened each time the reader has waited for so long in all. */
const GROW_AFTER_MS = 250

/**
 * The bytes of a blob in order, from the first source that has them. A connection that breaks is resumed at its
 * offset; a source that gives nothing more is left for the next, and only the last is tried again with pauses. Large
 * blobs come in parts, several at once while the reader has to wait for bytes. The stream errors unless exactly
 * `descriptor.size` bytes came. Its digest is the reader's to check.
 */
export function download(
  descriptor: Descriptor,
  sources: readonly BlobSource[],
  options: DownloadOptions,
): BlobStream {
  const traffic: Traffic = { received: 0, resumed: 0, waitedMs: 0, isWaiting: false, endpoint: '' }
  return new DownloadStream(options.signal, traffic, signal =>
    new Download(descriptor, sources, { ...options, signal }, traffic).chunks(),
  )
}

type Traffic = { -readonly [K in keyof BlobTraffic]: BlobTraffic[K] }

class Download {
  readonly #size: number
  readonly #sources: BlobSources
  readonly #options: DownloadOptions
  readonly #traffic: Traffic
  /** Parts that are asked for at once. */
  #width = 1
  #waitedSinceGrowth = 0
  /** How many bytes have been handed on. */
  #offset = 0

  constructor(
    descriptor: Descriptor,
    sources: readonly BlobSource[],
    options: DownloadOptions,
    traffic: Traffic,
  ) {
    this.#size = descriptor.size
    this.#options = options
    this.#traffic = traffic
    const narrow = () => {
      this.#width = 1 // a registry in trouble, or one that counts requests
    }
    const onReceived = (bytes: number) => {
      traffic.received += bytes
      traffic.endpoint = this.#sources.current?.name ?? ''
    }
    this.#sources = new BlobSources(descriptor, sources, { ...options, onTrouble: narrow, onReceived })
  }

  async *chunks(): AsyncGenerator<Buffer> {
    const { partial } = this.#options
    if (partial === undefined || partial.end <= partial.start) {
      yield* this.#received(this.#size)
      return
    }
    yield* this.#received(partial.start)
    // A server without ranges has sent everything meanwhile.
    if (this.#offset < partial.end) yield* this.#kept(partial)
    yield* this.#received(this.#size)
  }

  async *#kept(partial: PartialBlob): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of partial.read(this.#offset)) {
        this.#offset += chunk.length
        this.#traffic.resumed += chunk.length
        this.#options.onBytes?.(this.#offset)
        yield chunk
      }
    } catch {
      // What cannot be read is fetched again.
    }
  }

  /** From the network, from where we are to before `end`. */
  async *#received(end: number): AsyncGenerator<Buffer> {
    const { partial, onBytes } = this.#options
    const { ranges, signal } = this.#options
    const window = new Window(ranges, (stretch, closed) =>
      this.#sources.fetch(stretch, AbortSignal.any([signal, closed])),
    )
    try {
      window.begin(this.#offset, end, this.#size)
      while (window.fill(this.#width)) {
        const chunk = window.takeReady() ?? (await this.#wait(window))
        if (chunk === undefined) continue
        const offset = this.#offset
        this.#offset += chunk.length
        onBytes?.(this.#offset)
        await partial?.write(offset, chunk, this.#traffic.waitedMs)
        yield chunk
      }
    } finally {
      window.close()
    }
  }

  async #wait(window: Window): Promise<Buffer | undefined> {
    const began = performance.now()
    const isFirst = this.#offset === 0
    this.#traffic.isWaiting = true
    try {
      return await window.next()
    } finally {
      const waited = performance.now() - began
      this.#traffic.isWaiting = false
      this.#traffic.waitedMs += waited
      if (!isFirst) this.#grow(waited)
    }
  }

  #grow(waited: number): void {
    this.#waitedSinceGrowth += waited
    if (this.#waitedSinceGrowth < GROW_AFTER_MS) return
    this.#waitedSinceGrowth = 0
    this.#width = Math.min(this.#width + 1, this.#options.ranges.connections)
  }
}

type Fetch = (stretch: Stretch, closed: AbortSignal) => AsyncGenerator<Buffer>

/** The parts of a blob that are on their way, in order; the first is the one being handed on. */
class Window {
  readonly #ranges: RangeOptions
  readonly #fetch: Fetch
  readonly #parts: Part[] = []
  /** Where the next part begins. */
  #next = 0
  /** Of the last part; beyond what was asked for when a server sends everything. */
  #end = 0
  #partSize = 0

  constructor(ranges: RangeOptions, fetch: Fetch) {
    this.#ranges = ranges
    this.#fetch = fetch
  }

  begin(from: number, end: number, size: number): void {
    const { chunkSize, connections } = this.#ranges
    this.#next = from
    this.#end = end
    const isInParts = connections > 1 && size > chunkSize
    this.#partSize = isInParts ? chunkSize : Math.max(1, end - from)
  }

  /**
   * Asks for the first part and, as far as there is an allowance, for those after it.
   * @returns whether there is anything to wait for
   */
  fill(width: number): boolean {
    const [head] = this.#parts
    if (head !== undefined) this.#followServer(head)
    if (this.#parts.length === 0 && this.#next < this.#end) this.#open(HIGH_WATER_MARK, undefined)
    const left = (this.#parts[0]?.missing ?? 0) / this.#partSize
    // The next one is asked for in time, so that its beginning is not waited for.
    const wanted = Math.max(width, left < 0.25 ? 2 : 1)
    const { ahead, chunkSize } = this.#ranges
    while (this.#parts.length < wanted && this.#next < this.#end && ahead.take()) this.#open(chunkSize, ahead)
    return this.#parts.length > 0
  }

  /** What has come already. */
  takeReady(): Buffer | undefined {
    return this.#parts[0]?.take()
  }

  /** Waits for more; undefined when the first part has ended, which is then gone. */
  async next(): Promise<Buffer | undefined> {
    const head = this.#parts[0]!
    await head.news()
    const chunk = head.take()
    if (chunk !== undefined || !head.hasEnded) return chunk
    this.#followServer(head)
    this.#parts.shift()
    head.close()
    return undefined
  }

  close(): void {
    for (const part of this.#parts) part.close()
    this.#parts.length = 0
  }

  #open(limit: number, ahead: Allowance | undefined): void {
    const stretch = { at: this.#next, end: Math.min(this.#next + this.#partSize, this.#end) }
    this.#next = stretch.end
    this.#parts.push(new Part(stretch, this.#fetch, limit, ahead))
  }

  /** Of a server that sends everything from here on, nothing else is wanted. */
  #followServer(head: Part): void {
    if (head.end === head.askedEnd) return
    this.#end = Math.max(this.#end, head.end)
    this.#next = head.end
    for (const part of this.#parts.splice(1)) part.close()
  }
}

/** One request's part, received ahead of the reader up to a limit. */
class Part {
  /** Before a server decided otherwise. */
  readonly askedEnd: number
  hasEnded = false
  readonly #stretch: Stretch
  readonly #limit: number
  readonly #ahead: Allowance | undefined
  readonly #chunks: AsyncGenerator<Buffer>
  readonly #ready: Buffer[] = []
  #readyBytes = 0
  #error: unknown
  readonly #closed = new AbortController()
  #isClosed = false
  #wakeReader: () => void = () => undefined
  #wakeWriter: () => void = () => undefined

  constructor(stretch: Stretch, fetch: Fetch, limit: number, ahead: Allowance | undefined) {
    this.#stretch = stretch
    this.askedEnd = stretch.end
    this.#limit = limit
    this.#ahead = ahead
    this.#chunks = fetch(stretch, this.#closed.signal)
    void this.#receive()
  }

  get end(): number {
    return this.#stretch.end
  }

  /** Bytes that have not come yet. */
  get missing(): number {
    return this.#stretch.end - this.#stretch.at
  }

  take(): Buffer | undefined {
    const chunk = this.#ready.shift()
    if (chunk === undefined) return undefined
    this.#readyBytes -= chunk.length
    this.#wakeWriter()
    return chunk
  }

  /** Until there is something to take, or nothing will come any more. @throws what ended it */
  async news(): Promise<void> {
    if (this.#ready.length === 0 && !this.hasEnded) {
      await new Promise<void>(resolve => {
        this.#wakeReader = resolve
      })
    }
    if (this.#ready.length === 0 && this.#error !== undefined) throw this.#error
  }

  /** Breaks off what is running. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#ahead?.give()
    if (!this.hasEnded) this.#closed.abort(NOT_WANTED)
    this.#wakeWriter()
  }

  async #receive(): Promise<void> {
    try {
      for await (const chunk of this.#chunks) {
        this.#ready.push(chunk)
        this.#readyBytes += chunk.length
        this.#wakeReader()
        while (this.#readyBytes >= this.#limit && !this.#isClosed) await this.#room()
        if (this.#isClosed) return
      }
    } catch (error) {
      this.#error = error
    } finally {
      this.hasEnded = true
      this.#wakeReader()
    }
  }

  #room(): Promise<void> {
    return new Promise<void>(resolve => {
      this.#wakeWriter = resolve
    })
  }
}

/** What the generator yields. It begins when the stream is first read; dropping the stream aborts what it waits for. */
class DownloadStream extends Readable implements BlobStream {
  readonly traffic: BlobTraffic
  hasFailed = false
  readonly #caller: AbortSignal
  readonly #abort = new AbortController()
  readonly #chunks: AsyncGenerator<Buffer>
  readonly #onAbort = () => {
    this.#fail(aborted(this.#caller))
  }

  constructor(
    caller: AbortSignal,
    traffic: BlobTraffic,
    produce: (signal: AbortSignal) => AsyncGenerator<Buffer>,
  ) {
    super({ highWaterMark: HIGH_WATER_MARK })
    this.traffic = traffic
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
      error => {
        // Dropping the stream makes what it waits for fail.
        if (!this.destroyed) this.#fail(aborted(this.#caller) ?? error)
      },
    )
  }

  #fail(error: Error | undefined): void {
    this.hasFailed = true
    this.destroy(error)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#caller.removeEventListener('abort', this.#onAbort)
    this.#abort.abort(NOT_WANTED)
    this.#chunks.return(undefined).catch(() => undefined)
    done(error)
  }
}
