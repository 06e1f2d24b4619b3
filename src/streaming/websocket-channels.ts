import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { BerthError, messageOf } from '../base/errors.ts'
import { type Carrier, type CarrierEvents, Traffic } from './carrier.ts'
import { Channel } from './channel.ts'
import { Flow } from './flow.ts'

/** What one message says. */
export type Message =
  | { readonly type: 'data'; readonly channel: number; readonly bytes: Buffer }
  /** v5: the client's direction of a channel is over. */
  | { readonly type: 'end'; readonly channel: number }
  | { readonly type: 'broken'; readonly why: string }
  | { readonly type: 'nothing' }

export type Encoding = { readonly base64: boolean; readonly halfClose: boolean }

/** Channel 255 is an instruction. */
const INSTRUCTION = 0xff
const DIGIT_0 = 0x30

/** Payload of a message: what fits a client's buffer, and interleaves channels finely enough. */
const MAX_DATA = 32 * 1024

/** Reads a message: the channel as its first byte, or as a digit before base64. */
export function parseMessage(message: Buffer, isBinary: boolean, { base64, halfClose }: Encoding): Message {
  if (isBinary === base64) {
    return { type: 'broken', why: base64 ? 'a binary message' : 'a text message, expected binary ones' }
  }
  if (message.length === 0) return { type: 'nothing' }
  const channel = base64 ? message[0]! - DIGIT_0 : message[0]!
  if (base64) {
    if (channel < 0 || channel > 9) return { type: 'broken', why: 'a message that begins with no digit' }
    return { type: 'data', channel, bytes: Buffer.from(message.toString('latin1', 1), 'base64') }
  }
  if (halfClose && channel === INSTRUCTION) {
    if (message.length !== 2) return { type: 'broken', why: `a CLOSE of ${message.length} bytes, expected 2` }
    return { type: 'end', channel: message[1]! }
  }
  return { type: 'data', channel, bytes: message.subarray(1) }
}

/** Channels over the messages of a WebSocket, whose first byte says which is meant. */
export class WebSocketChannels implements Carrier {
  readonly traffic = new Traffic()
  readonly closed: Promise<void>
  readonly #ws: WebSocket
  readonly #socket: Duplex
  readonly #encoding: Encoding
  readonly #events: CarrierEvents
  readonly #flow: Flow
  readonly #channels = new Map<number, Channel>()
  #state: 'open' | 'ending' = 'open'

  /** @param socket the one below `ws` */
  constructor(ws: WebSocket, socket: Duplex, encoding: Encoding, events: CarrierEvents) {
    this.#ws = ws
    this.#socket = socket
    this.#encoding = encoding
    this.#events = events
    this.#flow = new Flow(socket, ws)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.closed = promise
    ws.on('message', (data, isBinary) => this.#received(data as Buffer, isBinary))
    ws.on('ping', data => {
      ws.pong(data)
      this.#flow.afterControl()
    })
    // The library has sent the close code that belongs to it.
    ws.on('error', error => this.#lose(new BerthError('invalid', `WebSocket: ${messageOf(error)}`, error)))
    ws.on('close', () => {
      this.#lose(new BerthError('cancelled', 'the client closed the connection'))
      resolve()
    })
  }

  /** Call it for every channel before the first turn ends: messages for others are dropped. */
  open(number: number): Channel {
    const channel = new Channel({
      send: (chunks, done) => this.#send(number, chunks, done),
      end: done => done(),
      full: () => this.#flow.hold(channel),
      wanted: () => this.#flow.release(channel),
      abandon: () => this.#channels.delete(number),
    })
    this.#channels.set(number, channel)
    return channel
  }

  /** An empty message, which tells a client that the connection works. */
  greet(number: number): void {
    this.#message(number, Buffer.alloc(0))
  }

  async finish(): Promise<void> {
    if (this.#state === 'open') {
      this.#end()
      // A closing handshake has a time limit; it is not to begin before everything is with the kernel.
      this.#socket.write(Buffer.alloc(0), () => this.#ws.close(1000))
    }
    await this.closed
  }

  destroy(): void {
    this.#ws.terminate()
  }

  probe(): void {
    if (this.#state === 'open' && this.#flow.held) this.#ws.ping()
  }

  #received(data: Buffer, isBinary: boolean): void {
    if (this.#state !== 'open') return
    const message = parseMessage(data, isBinary, this.#encoding)
    if (message.type === 'data') {
      this.traffic.received(message.bytes.length)
      this.#channels.get(message.channel)?.receive(message.bytes)
    } else if (message.type === 'end') {
      this.#channels.get(message.channel)?.receiveEnd()
    } else if (message.type === 'broken') {
      this.#ws.close(1002)
      this.#lose(new BerthError('invalid', `WebSocket: ${message.why}`))
    }
  }

  #send(number: number, chunks: readonly Buffer[], done: () => void): void {
    this.#socket.cork()
    for (const chunk of chunks) {
      for (let offset = 0; offset < chunk.length; offset += MAX_DATA) {
        this.#message(number, chunk.subarray(offset, offset + MAX_DATA))
      }
      this.traffic.sent(chunk.length)
    }
    this.#socket.uncork()
    this.#flow.afterWrite(done)
  }

  #message(number: number, bytes: Buffer): void {
    if (this.#encoding.base64) this.#ws.send(`${number}${bytes.toString('base64')}`)
    else this.#ws.send(Buffer.concat([CHANNEL_BYTES[number]!, bytes]))
  }

  #lose(why: BerthError): void {
    if (this.#state !== 'open') return
    this.#end()
    this.#events.onLost(why)
  }

  /** From here on only the closing handshake matters. */
  #end(): void {
    this.#state = 'ending'
    for (const channel of this.#channels.values()) channel.close()
    this.#channels.clear()
    this.#flow.close()
    this.#ws.resume()
  }
}

const CHANNEL_BYTES = Array.from({ length: 256 }, (_, number) => Buffer.from([number]))
