import type net from 'node:net'
import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { unreadIn } from '../os/handles.ts'
import { within } from './within.ts'

/**
 * What a process writes, handed on as it is to whoever reads it, and no faster. Without a sink it is dropped. A sink
 * that goes away closes the source: the writer gets SIGPIPE, as in a pipeline whose reader has ended.
 */
export class Forward {
  readonly #source: net.Socket
  readonly #sink: Writable | undefined
  readonly #closed = Promise.withResolvers<void>()
  readonly #paid = Promise.withResolvers<void>()
  #read = 0
  #owed = Number.POSITIVE_INFINITY

  constructor(source: net.Socket, sink: Writable | undefined) {
    this.#source = source
    this.#sink = sink
    const close = () => source.destroy()
    source.on('data', (chunk: Buffer) => this.#hand(chunk))
    source.on('end', close)
    source.on('error', close) // EIO is how a terminal ends
    source.on('close', () => this.#closed.resolve())
    if (source.destroyed) this.#closed.resolve() // an empty one may have ended before anybody read it
    sink?.on('drain', () => source.resume())
    sink?.on('error', close)
    sink?.on('close', close)
    if (sink?.destroyed === true) close()
  }

  #hand(chunk: Buffer): void {
    this.#read += chunk.length
    if (this.#sink?.writable === true && !this.#sink.write(chunk)) this.#source.pause()
    if (this.#read >= this.#owed) this.#paid.resolve()
  }

  /**
   * After the process has ended: waits for all that it left in the pipe, however slow the reader, and up to
   * `patienceMs` for the end of what others write that hold the pipe still. Then ends the sink, and waits until that
   * has handed on everything or is gone.
   */
  async finish(patienceMs: number): Promise<void> {
    this.#owed = this.#read + unreadIn(this.#source)
    if (this.#read >= this.#owed) this.#paid.resolve()
    await within(patienceMs, this.#closed.promise)
    await Promise.race([this.#closed.promise, this.#paid.promise])
    this.#source.destroy()
    if (this.#sink === undefined || this.#sink.destroyed) return
    this.#sink.end()
    await finished(this.#sink, { readable: false }).catch(() => undefined) // its reader has gone
  }

  close(): void {
    this.#source.destroy()
  }
}
