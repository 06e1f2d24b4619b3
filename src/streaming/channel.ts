import { Readable, Writable } from 'node:stream'
import { BerthError } from '../base/errors.ts'

/** What a channel needs from the connection that it is part of. */
export type ChannelWire = {
  /** Sends bytes; `done` when there is room for more. Never called after `end` or `abandon`. */
  send(chunks: readonly Buffer[], done: () => void): void
  /** Our direction is over. */
  end(done: () => void): void
  /** The reader is full: nothing more is to be received until `wanted`. */
  full(): void
  wanted(): void
  /** Nobody here wants this channel any more, though it did not end. */
  abandon(): void
}

/** Bytes that wait for a reader before the whole connection is held. */
const READ_AHEAD = 128 * 1024

/**
 * One named stream of bytes between a client and us, in both directions, whatever protocol carries it. `input` ends
 * when the client ends its direction; ending `output` ends ours. Destroying either gives the channel up.
 */
export class Channel {
  readonly input: Readable
  readonly output: Writable
  readonly #wire: ChannelWire
  /** The client has ended its direction. */
  #inputOver = false
  /** Nothing can be sent any more. */
  #reset = false
  /** The connection is held because of us. */
  #full = false

  constructor(wire: ChannelWire) {
    this.#wire = wire
    this.input = new Readable({
      highWaterMark: READ_AHEAD,
      read: () => this.#wanted(),
      destroy: (error, done) => {
        this.#wanted()
        if (!this.input.readableEnded) this.#abandon()
        done(error)
      },
    })
    this.output = new Writable({
      decodeStrings: true,
      write: (chunk, _, done) => this.#send([chunk], done),
      writev: (chunks, done) =>
        this.#send(
          chunks.map(({ chunk }) => chunk),
          done,
        ),
      final: done => {
        if (this.#reset) done()
        else this.#wire.end(done)
      },
      destroy: (error, done) => {
        if (!this.output.writableFinished) this.#abandon()
        done(error)
      },
    })
    // Whoever uses a side sees its errors there; one that nobody uses must not end the daemon.
    this.input.on('error', () => undefined)
    this.output.on('error', () => undefined)
  }

  /** From the client. What nobody reads any more is dropped. */
  receive(bytes: Buffer): void {
    if (this.#inputOver || this.input.destroyed) return
    if (this.input.push(bytes) || this.#full) return
    this.#full = true
    this.#wire.full()
  }

  /** The client's direction is over. */
  receiveEnd(): void {
    if (this.#inputOver || this.input.destroyed) return
    this.#inputOver = true
    this.input.push(null)
  }

  /** The client neither sends nor reads any more: the end of `input`, and who writes sees `output` closed. */
  receiveReset(): void {
    if (this.#reset) return
    this.#reset = true
    this.receiveEnd()
    this.output.destroy()
  }

  /** The connection is gone. */
  close(): void {
    this.#reset = true
    this.input.destroy()
    this.output.destroy()
  }

  #send(chunks: readonly Buffer[], done: (error?: Error) => void): void {
    if (this.#reset) done(new BerthError('cancelled', 'the client has closed this stream'))
    else this.#wire.send(chunks, done)
  }

  #wanted(): void {
    if (!this.#full) return
    this.#full = false
    this.#wire.wanted()
  }

  #abandon(): void {
    if (this.#reset) return
    this.#reset = true
    this.#wire.abandon()
  }
}
