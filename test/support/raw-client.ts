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

/**
 * A connection that sends calls and reads nothing, not even what the kernel keeps for it. A session of the HTTP/2
 * library reads whatever happens to its socket, so its frames are written here.
 */
export async function deafClient(path: string, method: string, calls: number): Promise<Socket> {
  const socket = connectSocket(path)
  await once(socket, 'connect')
  socket.on('error', () => undefined) // EPIPE: it was closed for what it does
  socket.pause()
  const [DATA, HEADERS, SETTINGS, WINDOW_UPDATE] = [0, 1, 4, 8]
  const [END_STREAM, END_HEADERS, INITIAL_WINDOW_SIZE] = [1, 4, 4]
  const large = 2 ** 30
  const window = Buffer.alloc(6)
  window.writeUInt16BE(INITIAL_WINDOW_SIZE)
  window.writeUInt32BE(large, 2)
  const more = Buffer.alloc(4)
  more.writeUInt32BE(large)
  const fields = { ':method': 'POST', ':scheme': 'http', ':path': method, ':authority': 'localhost' }
  const headers = literally({ ...fields, 'content-type': 'application/grpc', te: 'trailers' })
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(Buffer.concat([frame(SETTINGS, 0, 0, window), frame(WINDOW_UPDATE, 0, 0, more)]))
  for (let i = 0; i < calls; i++) {
    const stream = 2 * i + 1
    socket.write(frame(HEADERS, END_HEADERS, stream, headers))
    socket.write(frame(DATA, END_STREAM, stream, framed(Buffer.alloc(0))))
  }
  return socket
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Fields of HPACK as literals that are not indexed, each shorter than 127 bytes. */
function literally(fields: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => [Buffer.from([value.length]), Buffer.from(value)]
  return Buffer.concat(
    Object.entries(fields).flatMap(([name, value]) => [Buffer.from([0]), ...text(name), ...text(value)]),
  )
}

/** A message as gRPC frames it. */
export function framed(message: Buffer, compressed = false): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt8(compressed ? 1 : 0)
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}
