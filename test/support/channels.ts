import { PassThrough, Readable, Writable } from 'node:stream'
import type { Channels, TerminalSize } from '../../src/runtime/channels.ts'

type Wish = { readonly stdin?: boolean | Readable; readonly tty?: boolean; readonly size?: TerminalSize }

/** A client of an exec or attach as the streaming server stands for it: what it writes, and all that it was sent. */
export class TestClient implements Channels {
  readonly tty: boolean
  readonly stdin: Readable | undefined
  readonly stdout: Sink
  readonly stderr: Sink | undefined
  readonly #abort = new AbortController()
  #size: TerminalSize | undefined
  #onSize: ((size: TerminalSize) => void) | undefined

  constructor({ stdin = false, tty = false, size }: Wish = {}) {
    this.stdin = stdin instanceof Readable ? stdin : stdin ? new PassThrough() : undefined
    this.tty = tty
    this.stdout = new Sink()
    this.stderr = tty ? undefined : new Sink()
    this.#size = size
  }

  readonly onResize = (listener: (size: TerminalSize) => void): void => {
    this.#onSize = listener
    if (this.#size !== undefined) listener(this.#size)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  type(text: string | Buffer): void {
    ;(this.stdin as PassThrough).write(text)
  }

  endInput(): void {
    ;(this.stdin as PassThrough).end()
  }

  resize(width: number, height: number): void {
    this.#size = { width, height }
    this.#onSize?.(this.#size)
  }

  /** As when its connection is cut. */
  vanish(): void {
    this.#abort.abort()
    for (const stream of [this.stdin, this.stdout, this.stderr]) stream?.destroy()
  }
}

/** Keeps what it gets; while it is held it takes nothing more, as a client that does not read. */
export class Sink extends Writable {
  readonly chunks: Buffer[] = []
  length = 0
  #held: (() => void) | undefined
  #isHeld = false

  constructor() {
    super({ highWaterMark: 64 * 1024 })
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(chunk)
    this.length += chunk.length
    if (this.#isHeld) this.#held = done
    else done()
  }

  hold(): void {
    this.#isHeld = true
  }

  release(): void {
    this.#isHeld = false
    this.#held?.()
    this.#held = undefined
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks)
  }

  get text(): string {
    return this.bytes.toString()
  }
}
