import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { until } from './wait.ts'

const TEXT = 1
const BINARY = 2
const CLOSE = 8
const PING = 9
const PONG = 10

/** A WebSocket client (RFC 6455) that takes any protocol name, and can break the rules. */
export class WebSocketClient {
  /** Of the answer. */
  readonly protocol: string | undefined
  readonly socket: Socket
  readonly messages: Buffer[] = []
  pongs = 0
  closeCode: number | undefined
  closed = false
  /** As `messages`, when somebody wants each at once and none kept. */
  onMessage: ((message: Buffer) => void) | undefined
  #buffer: Buffer

  private constructor(protocol: string | undefined, socket: Socket, head: Buffer) {
    this.protocol = protocol
    this.socket = socket
    this.#buffer = head
    socket.on('data', chunk => this.#received(chunk))
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.closed = true
    })
    this.#received(Buffer.alloc(0))
  }

  /** @throws an Error with the status that the server answers instead of an upgrade */
  static async connect(
    url: string,
    protocols: readonly string[],
    headers: Readonly<Record<string, string>> = {},
  ): Promise<WebSocketClient> {
    const asked = request(url, {
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
        ...(protocols.length === 0 ? {} : { 'Sec-WebSocket-Protocol': protocols.join(', ') }),
        ...headers,
      },
    })
    asked.end()
    const [answer, socket, head] = await Promise.race([
      once(asked, 'upgrade'),
      once(asked, 'response').then(([refused]) => {
        refused.resume()
        throw new Error(`refused with ${refused.statusCode}`)
      }),
    ])
    return new WebSocketClient(answer.headers['sec-websocket-protocol'], socket, head)
  }

  binary(...parts: ReadonlyArray<Buffer | string | readonly number[]>): void {
    this.frame(BINARY, Buffer.concat(parts.map(part => Buffer.from(part as Buffer))))
  }

  text(message: string): void {
    this.frame(TEXT, Buffer.from(message))
  }

  ping(): void {
    this.frame(PING, Buffer.from('p'))
  }

  close(code: number): void {
    const payload = Buffer.alloc(2)
    payload.writeUInt16BE(code)
    this.frame(CLOSE, payload)
  }

  /** One whole message. */
  frame(opcode: number, payload: Buffer): void {
    const { length } = payload
    const size =
      length < 126
        ? Buffer.from([length])
        : Buffer.alloc(length < 65_536 ? 3 : 9, length < 65_536 ? 126 : 127)
    if (length >= 65_536) size.writeBigUInt64BE(BigInt(length), 1)
    else if (length >= 126) size.writeUInt16BE(length, 1)
    size[0]! |= 0x80
    const mask = randomBytes(4)
    const masked = Buffer.from(payload)
    for (let at = 0; at < length; at++) masked[at]! ^= mask[at % 4]!
    this.socket.write(Buffer.concat([Buffer.from([0x80 | opcode]), size, mask, masked]))
  }

  /** What has arrived on a binary channel, in one piece. */
  on(channel: number): Buffer {
    return Buffer.concat(
      this.messages.filter(([first]) => first === channel).map(message => message.subarray(1)),
    )
  }

  async untilClosed(): Promise<void> {
    await until('the server closes the connection', () => this.closed)
  }

  #received(chunk: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, chunk])
    for (;;) {
      if (this.#buffer.length < 2) return
      let [at, length] = [2, this.#buffer[1]!]
      if (length === 126 && this.#buffer.length >= 4) [at, length] = [4, this.#buffer.readUInt16BE(2)]
      else if (length === 127 && this.#buffer.length >= 10)
        [at, length] = [10, Number(this.#buffer.readBigUInt64BE(2))]
      else if (length > 125) return
      if (this.#buffer.length < at + length) return
      this.#frame(this.#buffer[0]! & 15, this.#buffer.subarray(at, at + length))
      this.#buffer = this.#buffer.subarray(at + length)
    }
  }

  #frame(opcode: number, payload: Buffer): void {
    if (opcode === PONG) this.pongs++
    else if (opcode === CLOSE) {
      this.closeCode = payload.length === 0 ? 1005 : payload.readUInt16BE(0)
      this.frame(CLOSE, payload)
      this.socket.end()
    } else if (opcode === TEXT || opcode === BINARY) {
      if (this.onMessage === undefined) this.messages.push(Buffer.from(payload))
      else this.onMessage(payload)
    }
  }
}
