import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type Settings,
} from 'node:http2'
import { connect as connectSocket, type Socket } from 'node:net'

/** What became of a call: its gRPC status, or how its stream was reset. */
export type RawEnd = { readonly status?: number; readonly message?: string; readonly reset?: number }

/**
 * A client of the CRI that is no gRPC library: it sends what a test wants when the test wants it, and reads nothing
 * with a window of 0.
 */
export class RawClient implements Disposable {
  readonly session: ClientHttp2Session
  readonly socket: Socket

  private constructor(session: ClientHttp2Session, socket: Socket) {
    this.session = session
    this.socket = socket
    session.on('error', () => undefined)
  }

  static async connect(path: string, settings: Settings = {}): Promise<RawClient> {
    const socket = connectSocket(path)
    await once(socket, 'connect')
    const session = connect('http://localhost', { createConnection: () => socket, settings })
    const client = new RawClient(session, socket)
    await once(session, 'remoteSettings')
    return client
  }

  /** Without a body, its request stays open. */
  call(method: string, body?: Buffer, headers: Readonly<Record<string, string>> = {}): RawCall {
    const stream = this.session.request({
      ':method': 'POST',
      ':path': method,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    if (body !== undefined) stream.end(body)
    return new RawCall(stream)
  }

  [Symbol.dispose](): void {
    this.session.destroy()
    this.socket.destroy()
  }
}

export class RawCall {
  readonly stream: ClientHttp2Stream
  readonly ended: Promise<RawEnd>
  received = 0
  #end: RawEnd | undefined

  constructor(stream: ClientHttp2Stream) {
    this.stream = stream
    const { promise, resolve } = Promise.withResolvers<RawEnd>()
    this.ended = promise
    let fields: Readonly<Record<string, unknown>> = {}
    const keep = (headers: object) => {
      fields = { ...fields, ...headers }
    }
    stream.on('response', keep)
    stream.on('trailers', keep)
    stream.on('error', () => undefined)
    stream.on('data', (data: Buffer) => {
      this.received += data.length
    })
    // Answered before its request has ended: a client has no more to send then.
    stream.on('end', () => stream.close())
    stream.on('close', () => {
      const status = fields['grpc-status']
      const message = fields['grpc-message']
      const reset = stream.rstCode === constants.NGHTTP2_NO_ERROR ? undefined : stream.rstCode
      this.#end = {
        ...(status === undefined ? {} : { status: Number(status) }),
        ...(message === undefined ? {} : { message: decodeURI(String(message)) }),
        ...(reset === undefined ? {} : { reset }),
      }
      resolve(this.#end)
    })
  }

  /** How it ended, as far as it has. */
  get end(): RawEnd | undefined {
    return this.#end
  }
}

/** A message as gRPC frames it. */
export function framed(message: Buffer, compressed = false): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt8(compressed ? 1 : 0)
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}
