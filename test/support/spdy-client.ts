import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { constants, createDeflate, createInflate } from 'node:zlib'
import { SPDY_DICTIONARY } from '../../src/streaming/spdy-dictionary.ts'
import { until } from './wait.ts'

/** One stream as the client sees it. */
export type ClientStream = {
  readonly id: number
  replied: boolean
  received: Buffer
  /** The server has ended its direction. */
  ended: boolean
  /** The status of its RST_STREAM. */
  reset: number | undefined
}

export type Answer = {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

export type UpgradeOptions = {
  readonly method?: string
  /** The header `X-Stream-Protocol-Version`, one for each. */
  readonly versions?: readonly string[]
  /** Instead of those of an upgrade. */
  readonly headers?: readonly string[]
  readonly tls?: ConnectionOptions
  /** Sent in the same segment as the request. */
  readonly head?: Buffer
}

/** A SPDY/3.1 client as Go's are, with a framing of its own that can be broken at will. */
export class SpdyClient {
  readonly socket: Socket
  readonly answer: Answer
  readonly streams = new Map<number, ClientStream>()
  readonly pongs: number[] = []
  /** The status of the server's GOAWAY, which has to be its last frame. */
  goaway: number | undefined
  closed = false
  readonly #deflate = createDeflate({ dictionary: SPDY_DICTIONARY, level: 9 })
  readonly #inflate = createInflate({ dictionary: SPDY_DICTIONARY, flush: constants.Z_SYNC_FLUSH })
  #buffer: Buffer
  #nextId = 1

  private constructor(socket: Socket, answer: Answer, rest: Buffer) {
    this.socket = socket
    this.answer = answer
    this.#buffer = rest
    socket.on('data', chunk => this.#received(chunk)).resume()
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.closed = true
    })
    this.#received(Buffer.alloc(0))
  }

  /** Sends the request of an upgrade and reads the answer, whatever it is. */
  static async connect(url: string, options: UpgradeOptions = {}): Promise<SpdyClient> {
    const { hostname, port, host, pathname } = new URL(url)
    const at = { host: hostname.replace(/[[\]]/g, ''), port: Number(port) }
    const socket = options.tls === undefined ? connect(at) : connectTls({ ...at, ...options.tls })
    await once(socket, options.tls === undefined ? 'connect' : 'secureConnect')
    const upgrade = ['Connection: Upgrade', 'Upgrade: SPDY/3.1']
    const versions = (options.versions ?? []).map(version => `X-Stream-Protocol-Version: ${version}`)
    const fields = [`Host: ${host}`, 'Content-Length: 0', ...upgrade, ...versions]
    const request = `${options.method ?? 'POST'} ${pathname} HTTP/1.1\r\n${(options.headers ?? fields).join('\r\n')}\r\n\r\n`
    socket.write(Buffer.concat([Buffer.from(request), options.head ?? Buffer.alloc(0)]))
    let received = Buffer.alloc(0)
    for (;;) {
      const [chunk] = await Promise.race([
        once(socket, 'data'),
        once(socket, 'close').then(() => [undefined]),
      ])
      if (chunk === undefined) throw new Error(`closed without an answer: ${received}`)
      received = Buffer.concat([received, chunk])
      const end = received.indexOf('\r\n\r\n')
      if (end < 0) continue
      const answer = parseAnswer(received.toString('latin1', 0, end))
      const length = Number(answer.headers.get('content-length') ?? 0)
      if (received.length < end + 4 + length) continue
      const body = received.toString('utf8', end + 4, end + 4 + length)
      socket.pause()
      return new SpdyClient(socket, { ...answer, body }, received.subarray(end + 4 + length))
    }
  }

  /** Opens a stream; does not wait for its reply. */
  async open(
    headers: Readonly<Record<string, string>>,
    { id = this.#nextId, fin = false } = {},
  ): Promise<ClientStream> {
    this.#nextId = Math.max(this.#nextId, id + 2)
    const stream: ClientStream = {
      id,
      replied: false,
      received: Buffer.alloc(0),
      ended: false,
      reset: undefined,
    }
    this.streams.set(id, stream)
    this.socket.write(await this.synStream(id, headers, { fin }))
    return stream
  }

  /** The frame that opens a stream. Frames have to be sent in the order in which they were made. */
  async synStream(
    id: number,
    headers: Readonly<Record<string, string>>,
    { fin = false } = {},
  ): Promise<Buffer> {
    const block = await this.compress(headerBlock(Object.entries(headers)))
    const payload = Buffer.concat([uint32(id, 0), Buffer.alloc(2), block])
    return frame(1, payload, fin ? 1 : 0)
  }

  /** A header block through the connection's compression context. */
  async compress(block: Buffer): Promise<Buffer> {
    this.#deflate.write(block)
    await new Promise<void>(resolve => this.#deflate.flush(constants.Z_SYNC_FLUSH, resolve))
    const parts: Buffer[] = []
    for (let part = this.#deflate.read(); part !== null; part = this.#deflate.read()) parts.push(part)
    return Buffer.concat(parts)
  }

  data(id: number, bytes: Buffer | string, { fin = false } = {}): boolean {
    return this.socket.write(dataFrame(id, Buffer.from(bytes), fin))
  }

  end(id: number): void {
    this.data(id, '', { fin: true })
  }

  reset(id: number): void {
    this.socket.write(frame(3, uint32(id, 5)))
  }

  ping(id: number): void {
    this.socket.write(frame(6, uint32(id)))
  }

  async untilClosed(): Promise<void> {
    await until('the server closes the connection', () => this.closed)
  }

  #received(chunk: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, chunk])
    while (this.#buffer.length >= 8) {
      const length = this.#buffer.readUIntBE(5, 3)
      if (this.#buffer.length < 8 + length) break
      if (this.goaway !== undefined) throw new Error('a frame after GOAWAY')
      this.#frame(this.#buffer.subarray(0, 8), this.#buffer.subarray(8, 8 + length))
      this.#buffer = this.#buffer.subarray(8 + length)
    }
  }

  #frame(header: Buffer, payload: Buffer): void {
    const first = header.readUInt32BE(0)
    if (first < 0x8000_0000) {
      const stream = this.streams.get(first)
      if (stream === undefined) throw new Error(`data of an unknown stream ${first}`)
      if (!stream.replied) throw new Error(`data of stream ${first} before its reply`)
      if (stream.ended) throw new Error(`data of stream ${first} after its end`)
      stream.received = Buffer.concat([stream.received, payload])
      stream.ended = header[4] === 1
      return
    }
    const stream = this.streams.get(payload.readUInt32BE(0))
    switch (first & 0xffff) {
      case 2:
        this.#inflate.write(payload.subarray(4), () => {
          const block: Buffer = this.#inflate.read()
          if (!block.equals(Buffer.alloc(4)))
            throw new Error(`a reply with headers: ${block.toString('hex')}`)
          stream!.replied = true
        })
        // Its block is whole with this frame; what follows in the same segment may be read at once.
        stream!.replied = true
        break
      case 3:
        if (stream !== undefined) stream.reset = payload.readUInt32BE(4)
        break
      case 6:
        this.pongs.push(payload.readUInt32BE(0))
        break
      case 7:
        this.goaway = payload.readUInt32BE(4)
        break
      default:
        throw new Error(`frame of type ${first & 0xffff}`)
    }
  }
}

function parseAnswer(text: string): Answer {
  const [first = '', ...lines] = text.split('\r\n')
  const headers = lines.map((line): [string, string] => {
    const [name = '', ...value] = line.split(': ')
    return [name.toLowerCase(), value.join(': ')]
  })
  return { status: Number(first.split(' ')[1]), headers: new Map(headers), body: '' }
}

/** A control frame of version 3. */
export function frame(type: number, payload: Buffer, flags = 0, version = 3): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt16BE(0x8000 | version, 0)
  header.writeUInt16BE(type, 2)
  header[4] = flags
  header.writeUIntBE(payload.length, 5, 3)
  return Buffer.concat([header, payload])
}

export function dataFrame(id: number, bytes: Buffer, fin = false): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt32BE(id, 0)
  header[4] = fin ? 1 : 0
  header.writeUIntBE(bytes.length, 5, 3)
  return Buffer.concat([header, bytes])
}

/** Uncompressed. */
export function headerBlock(headers: ReadonlyArray<readonly [string, string]>): Buffer {
  const fields = headers.flat().map(field => Buffer.from(field))
  return Buffer.concat([uint32(headers.length), ...fields.flatMap(field => [uint32(field.length), field])])
}

export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  values.forEach((value, index) => {
    bytes.writeUInt32BE(value >>> 0, 4 * index)
  })
  return bytes
}
