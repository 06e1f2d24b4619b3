import type { Duplex } from 'node:stream'
import { BerthError, messageOf } from '../base/errors.ts'
import { type Carrier, type CarrierEvents, Traffic } from './carrier.ts'
import { Channel } from './channel.ts'
import { Flow } from './flow.ts'
import { closeGently } from './goodbye.ts'
import {
  dataHeader,
  type Frame,
  FrameReader,
  GOAWAY,
  goaway,
  ping,
  RESET,
  resetStream,
  SpdyError,
  synReply,
} from './spdy-frames.ts'
import { emptyBlock, HeaderInflater, type Headers } from './spdy-headers.ts'

/** A stream that the client wants to open. One of the two has to be called before the next turn. */
export type Opening = {
  /** Odd and larger than all before it. */
  readonly id: number
  readonly headers: Headers
  accept(): Channel
  refuse(): void
}

export type SpdyEvents = CarrierEvents & { readonly onStream: (opening: Opening) => void }

/** What is known of a stream that is not over in both directions. */
type Stream = { readonly channel: Channel; ended: boolean; peerEnded: boolean }

/** Streams at a time: 500 forwarded connections, or a hundred times what an exec needs. */
const MAX_STREAMS = 1000

/** Payload of a data frame: interleaves streams finely enough and costs a client one small allocation. */
const MAX_DATA = 32 * 1024

/**
 * The server's side of a SPDY/3.1 connection, as Go's clients need it: every stream is answered before anything is
 * sent on it, windows are neither heeded nor updated, and GOAWAY is the last frame.
 */
export class SpdyConnection implements Carrier {
  readonly traffic = new Traffic()
  readonly closed: Promise<void>
  readonly #transport: Duplex
  readonly #events: SpdyEvents
  readonly #flow: Flow
  readonly #reader = new FrameReader()
  readonly #inflater = new HeaderInflater()
  readonly #streams = new Map<number, Stream>()
  #lastId = 0
  #replied = false
  #inflating = false
  #probeId = 0
  #state: 'open' | 'ending' | 'closed' = 'open'
  #lost: BerthError | undefined

  /** @param head what the client sent right behind its request */
  constructor(transport: Duplex, head: Buffer, events: SpdyEvents) {
    this.#transport = transport
    this.#events = events
    this.#flow = new Flow(transport, transport)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.closed = promise
    transport.on('data', (chunk: Buffer) => this.#received(chunk))
    transport.on('end', () => {
      if (this.#state === 'open') transport.destroy()
    })
    transport.on('error', error => {
      const broke = `the connection to the client broke: ${messageOf(error)}`
      this.#lost ??= error instanceof BerthError ? error : new BerthError('cancelled', broke, error)
    })
    transport.on('close', () => {
      this.#close()
      resolve()
    })
    this.#received(head)
  }

  async finish(): Promise<void> {
    this.#end(GOAWAY.ok)
    await this.closed
  }

  destroy(): void {
    this.#transport.destroy()
  }

  probe(): void {
    if (this.#state !== 'open' || !this.#flow.held) return
    // The ids of a server's pings are even.
    this.#probeId = (this.#probeId + 2) % 0x8000_0000 || 2
    this.#control(ping(this.#probeId))
  }

  #received(chunk: Buffer): void {
    if (this.#state !== 'open') return
    this.#reader.push(chunk)
    this.#read()
  }

  /** Frames in order; the inflater takes its time over headers, and everything behind them waits. */
  #read(): void {
    try {
      while (!this.#inflating && this.#state === 'open') {
        const frame = this.#reader.next()
        if (frame === undefined) break
        this.#handle(frame)
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  #handle(frame: Frame): void {
    switch (frame.type) {
      case 'data':
        this.#data(frame.id, frame.bytes, frame.last)
        break
      case 'syn-stream':
        this.#inflate(frame.headers, headers => this.#open(frame, headers))
        break
      case 'headers':
        this.#inflate(frame.headers, () => this.#data(frame.id, NOTHING, frame.last))
        break
      case 'reset':
        this.#streams.get(frame.id)?.channel.receiveReset()
        this.#streams.delete(frame.id)
        break
      case 'ping':
        // An even one is the answer to ours.
        if (frame.id % 2 === 1) this.#control(ping(frame.id))
        break
      case 'goaway':
      case 'ignored':
        break
    }
  }

  #inflate(block: Buffer, use: (headers: Headers) => void): void {
    this.#inflating = true
    this.#flow.hold(this.#inflater)
    this.#inflater
      .inflate(block)
      .then(headers => {
        this.#inflating = false
        this.#flow.release(this.#inflater)
        if (this.#state !== 'open') return
        use(headers)
        this.#read()
      })
      .catch(error => this.#fail(error))
  }

  /** Frames of streams that are over, or never were, have been under way when that happened: ignored. */
  #data(id: number, bytes: Buffer, last: boolean): void {
    const stream = this.#streams.get(id)
    if (stream === undefined || stream.peerEnded) return
    this.traffic.received(bytes.length)
    if (bytes.length > 0) stream.channel.receive(bytes)
    if (!last) return
    stream.peerEnded = true
    stream.channel.receiveEnd()
    this.#forgetIfOver(id, stream)
  }

  #open(frame: Frame & { type: 'syn-stream' }, headers: Headers): void {
    const { id } = frame
    if (id === 0) throw new SpdyError('stream 0 cannot be opened')
    if (id % 2 === 0 || id <= this.#lastId || frame.unidirectional) {
      this.#control(resetStream(id, RESET.protocolError))
      return
    }
    this.#lastId = id
    if (this.#streams.size >= MAX_STREAMS) {
      this.#control(resetStream(id, RESET.refused))
      return
    }
    this.#events.onStream({
      id,
      headers,
      accept: () => this.#accept(id, frame.last),
      refuse: () => this.#control(resetStream(id, RESET.refused)),
    })
  }

  #accept(id: number, peerEnded: boolean): Channel {
    const channel = new Channel({
      send: (chunks, done) => this.#send(id, chunks, done),
      end: done => {
        this.#transport.write(dataHeader(id, 0, true))
        stream.ended = true
        this.#forgetIfOver(id, stream)
        done()
      },
      full: () => this.#flow.hold(channel),
      wanted: () => this.#flow.release(channel),
      abandon: () => {
        if (this.#streams.delete(id)) this.#control(resetStream(id, RESET.cancel))
      },
    })
    const stream: Stream = { channel, ended: false, peerEnded }
    this.#streams.set(id, stream)
    this.#control(synReply(id, emptyBlock(!this.#replied)))
    this.#replied = true
    if (peerEnded) channel.receiveEnd()
    return channel
  }

  #send(id: number, chunks: readonly Buffer[], done: () => void): void {
    const transport = this.#transport
    transport.cork()
    for (const chunk of chunks) {
      for (let offset = 0; offset < chunk.length; offset += MAX_DATA) {
        const piece = chunk.length <= MAX_DATA ? chunk : chunk.subarray(offset, offset + MAX_DATA)
        transport.write(dataHeader(id, piece.length, false))
        transport.write(piece)
      }
      this.traffic.sent(chunk.length)
    }
    transport.uncork()
    this.#flow.afterWrite(done)
  }

  #control(frame: Buffer): void {
    if (this.#state !== 'open') return
    this.#transport.write(frame)
    this.#flow.afterControl()
  }

  #forgetIfOver(id: number, stream: Stream): void {
    if (stream.ended && stream.peerEnded) this.#streams.delete(id)
  }

  /** What the client did wrong, it is told by a GOAWAY. */
  #fail(error: unknown): void {
    if (this.#state !== 'open') return
    const broken = error instanceof SpdyError
    this.#lost = new BerthError(broken ? 'invalid' : 'internal', `SPDY: ${messageOf(error)}`, error)
    this.#end(broken ? GOAWAY.protocolError : GOAWAY.internal)
    this.#events.onLost(this.#lost)
  }

  #end(status: number): void {
    if (this.#state !== 'open') return
    for (const [id, { channel }] of this.#streams) {
      this.#transport.write(resetStream(id, RESET.cancel))
      channel.close()
    }
    this.#streams.clear()
    this.#state = 'ending'
    this.#transport.write(goaway(this.#lastId, status))
    this.#inflater.close()
    this.#flow.close()
    closeGently(this.#transport)
  }

  #close(): void {
    if (this.#state === 'closed') return
    const lost = this.#state === 'open'
    this.#state = 'closed'
    for (const { channel } of this.#streams.values()) channel.close()
    this.#streams.clear()
    this.#inflater.close()
    this.#flow.close()
    if (lost)
      this.#events.onLost(this.#lost ?? new BerthError('cancelled', 'the client closed the connection'))
  }
}

const NOTHING = Buffer.alloc(0)
