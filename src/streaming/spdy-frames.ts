/*
 * SPDY/3.1 framing (draft-mbelshe-httpbis-spdy-00, section 2.2), big-endian:
 *
 *   control  1 | version 15 | type 16 | flags 8 | length 24 | payload
 *   data     0 | stream id 31         | flags 8 | length 24 | payload
 */

/** The peer broke the protocol in a way that a connection does not survive. */
export class SpdyError extends Error {
  override readonly name = 'SpdyError'
}

export type Frame =
  /** As much of a data frame as has arrived; `last` with the end of the peer's direction. */
  | { readonly type: 'data'; readonly id: number; readonly bytes: Buffer; readonly last: boolean }
  | {
      readonly type: 'syn-stream'
      readonly id: number
      readonly last: boolean
      readonly unidirectional: boolean
      /** Compressed. */
      readonly headers: Buffer
    }
  /** SYN_REPLY and HEADERS: nothing in them matters here, but they belong to the compression context. */
  | { readonly type: 'headers'; readonly id: number; readonly last: boolean; readonly headers: Buffer }
  | { readonly type: 'reset'; readonly id: number; readonly status: number }
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'goaway' }
  /** SETTINGS and WINDOW_UPDATE: well-formed, without meaning for us. */
  | { readonly type: 'ignored' }

/** Status codes of RST_STREAM (section 2.6.3). */
export const RESET = { protocolError: 1, invalidStream: 2, refused: 3, cancel: 5, internal: 6 } as const

/** Status codes of GOAWAY (section 2.6.6). */
export const GOAWAY = { ok: 0, protocolError: 1, internal: 2 } as const

const HEADER_BYTES = 8
const VERSION = 3
const FLAG_FIN = 0x01
const FLAG_UNIDIRECTIONAL = 0x02
const TYPE = {
  synStream: 1,
  synReply: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  headers: 8,
  windowUpdate: 9,
} as const
const ID_BITS = 0x7fff_ffff

/** Of a control frame's payload: it is kept until it is whole. What clients send has some hundred bytes. */
export const MAX_CONTROL_BYTES = 64 * 1024

/** A control frame that arrives in crumbs is joined now and then: each crumb costs more than its bytes. */
const MAX_CHUNKS = 64

const NOTHING = Buffer.alloc(0)

/** Cuts a byte stream into frames. Data is handed on as it arrives and never copied. */
export class FrameReader {
  /** What has arrived and was not yet taken, oldest first. */
  readonly #chunks: Buffer[] = []
  #size = 0
  /** The data frame that is being received. */
  #data: { readonly id: number; readonly fin: boolean; left: number } | undefined

  push(chunk: Buffer): void {
    if (chunk.length === 0) return
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#chunks.length >= MAX_CHUNKS) this.#join()
  }

  /** The next frame or part of one; undefined until more has arrived. @throws SpdyError */
  next(): Frame | undefined {
    if (this.#data !== undefined) return this.#moreData(this.#data)
    if (this.#size < HEADER_BYTES) return undefined
    const header = this.#peek(HEADER_BYTES)
    const first = header.readUInt32BE(0)
    const flags = header[4]!
    const length = header.readUIntBE(5, 3)
    if (first <= ID_BITS) {
      this.#take(HEADER_BYTES)
      this.#data = { id: first, fin: (flags & FLAG_FIN) !== 0, left: length }
      return this.#moreData(this.#data)
    }
    const version = (first >>> 16) & 0x7fff
    if (version !== VERSION) throw new SpdyError(`frame of version ${version}, expected ${VERSION}`)
    if (length > MAX_CONTROL_BYTES) {
      throw new SpdyError(`control frame of ${length} bytes, at most ${MAX_CONTROL_BYTES} are taken`)
    }
    if (this.#size < HEADER_BYTES + length) return undefined
    this.#take(HEADER_BYTES)
    return decodeControl(first & 0xffff, flags, this.#take(length))
  }

  #moreData(data: { readonly id: number; readonly fin: boolean; left: number }): Frame | undefined {
    if (data.left > 0 && this.#size === 0) return undefined
    const bytes = this.#take(Math.min(data.left, this.#chunks[0]?.length ?? 0))
    data.left -= bytes.length
    if (data.left === 0) this.#data = undefined
    return { type: 'data', id: data.id, bytes, last: data.fin && data.left === 0 }
  }

  /** The first bytes in one piece, left where they are. */
  #peek(length: number): Buffer {
    if (this.#chunks[0]!.length < length) this.#join()
    return this.#chunks[0]!
  }

  #join(): void {
    this.#chunks.splice(0, this.#chunks.length, Buffer.concat(this.#chunks))
  }

  #take(length: number): Buffer {
    if (length === 0) return NOTHING
    const first = this.#peek(length)
    this.#size -= length
    if (first.length === length) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(length)
    return first.length === length ? first : first.subarray(0, length)
  }
}

function decodeControl(type: number, flags: number, payload: Buffer): Frame {
  switch (type) {
    case TYPE.synStream:
      expect('SYN_STREAM', payload.length >= 10 && (flags & ~(FLAG_FIN | FLAG_UNIDIRECTIONAL)) === 0)
      return {
        type: 'syn-stream',
        id: streamId(payload),
        last: (flags & FLAG_FIN) !== 0,
        unidirectional: (flags & FLAG_UNIDIRECTIONAL) !== 0,
        headers: payload.subarray(10),
      }
    case TYPE.synReply:
    case TYPE.headers:
      expect('a header frame', payload.length >= 4 && (flags & ~FLAG_FIN) === 0)
      return {
        type: 'headers',
        id: streamId(payload),
        last: (flags & FLAG_FIN) !== 0,
        headers: payload.subarray(4),
      }
    case TYPE.reset:
      expect('RST_STREAM', payload.length === 8 && flags === 0 && payload.readUInt32BE(4) !== 0)
      return { type: 'reset', id: streamId(payload), status: payload.readUInt32BE(4) }
    case TYPE.settings:
      expect('SETTINGS', payload.length >= 4 && payload.length === 4 + 8 * payload.readUInt32BE(0))
      return { type: 'ignored' }
    case TYPE.ping:
      expect('PING', payload.length === 4 && flags === 0 && payload.readUInt32BE(0) !== 0)
      return { type: 'ping', id: payload.readUInt32BE(0) }
    case TYPE.goaway:
      expect('GOAWAY', payload.length === 8 && flags === 0)
      return { type: 'goaway' }
    case TYPE.windowUpdate:
      expect('WINDOW_UPDATE', payload.length === 8 && flags === 0)
      return { type: 'ignored' }
    default:
      throw new SpdyError(`control frame of unknown type ${type}`)
  }
}

function streamId(payload: Buffer): number {
  return payload.readUInt32BE(0) & ID_BITS
}

function expect(frame: string, wellFormed: boolean): void {
  if (!wellFormed) throw new SpdyError(`malformed ${frame}`)
}

/** The header of a data frame; its payload is written after it, uncopied. `last` ends our direction. */
export function dataHeader(id: number, length: number, last: boolean): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES)
  header.writeUInt32BE(id, 0)
  header[4] = last ? FLAG_FIN : 0
  header.writeUIntBE(length, 5, 3)
  return header
}

/** @param headers compressed */
export function synReply(id: number, headers: Buffer): Buffer {
  return control(TYPE.synReply, Buffer.concat([words(id), headers]))
}

export function resetStream(id: number, status: number): Buffer {
  return control(TYPE.reset, words(id, status))
}

export function ping(id: number): Buffer {
  return control(TYPE.ping, words(id))
}

export function goaway(lastGoodId: number, status: number): Buffer {
  return control(TYPE.goaway, words(lastGoodId, status))
}

function control(type: number, payload: Buffer, flags = 0): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  frame.writeUInt16BE(0x8000 | VERSION, 0)
  frame.writeUInt16BE(type, 2)
  frame[4] = flags
  frame.writeUIntBE(payload.length, 5, 3)
  payload.copy(frame, HEADER_BYTES)
  return frame
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(4 * values.length)
  values.forEach((value, index) => {
    bytes.writeUInt32BE(value, 4 * index)
  })
  return bytes
}
