import type { DuplexOptions } from 'node:stream'
import { constants, createInflate, type ZlibOptions } from 'node:zlib'
import { SPDY_DICTIONARY } from './spdy-dictionary.ts'
import { SpdyError } from './spdy-frames.ts'

/*
 * Header blocks of SPDY/3 (draft section 2.6.10): a count, then per header length and name, length and value, all in
 * one zlib stream per direction that is flushed after each block.
 */

/** By lower-case name. Several values of one name are separated by NUL. */
export type Headers = ReadonlyMap<string, string>

/** Clients send three; the bound is that of Go's server. */
const MAX_HEADERS = 100

/** Of one name or value, as Go's server has it. */
const MAX_FIELD_BYTES = 8 * 1024

/** Of an inflated block: a bomb ends here. */
export const MAX_BLOCK_BYTES = 64 * 1024

/** @throws SpdyError */
export function parseHeaders(block: Buffer): Headers {
  let offset = 0
  const number = (): number => {
    if (block.length - offset < 4) throw new SpdyError('header block ends early')
    offset += 4
    return block.readUInt32BE(offset - 4)
  }
  const field = (): string => {
    const length = number()
    if (length > MAX_FIELD_BYTES) {
      throw new SpdyError(`header of ${length} bytes, at most ${MAX_FIELD_BYTES} are taken`)
    }
    if (block.length - offset < length) throw new SpdyError('header block ends early')
    offset += length
    return block.toString('utf8', offset - length, offset)
  }
  const count = number()
  if (count > MAX_HEADERS) throw new SpdyError(`${count} headers, at most ${MAX_HEADERS} are taken`)
  const headers = new Map<string, string>()
  for (let index = 0; index < count; index++) {
    const name = field().toLowerCase()
    if (name === '') throw new SpdyError('header without a name')
    if (headers.has(name)) throw new SpdyError(`header ${JSON.stringify(name)} occurs twice`)
    headers.set(name, field())
  }
  if (offset !== block.length) throw new SpdyError('header block goes on after its last header')
  return headers
}

/** The peer's compression context: blocks have to come through it in the order of their frames, wanted or not. */
export class HeaderInflater {
  // The high-water mark is above what is allowed, so that a whole block fits and zlib never waits for a reader.
  readonly #zlib = createInflate({
    dictionary: SPDY_DICTIONARY,
    flush: constants.Z_SYNC_FLUSH,
    readableHighWaterMark: 2 * MAX_BLOCK_BYTES,
  } as ZlibOptions & DuplexOptions)
  #fail: ((error: SpdyError) => void) | undefined

  constructor() {
    this.#zlib.on('error', error => this.#fail?.(new SpdyError(`header block: ${error.message}`)))
  }

  /** One block at a time. Rejects with a SpdyError, and then it is over for good. */
  inflate(block: Buffer): Promise<Headers> {
    const { promise, resolve, reject } = Promise.withResolvers<Headers>()
    const chunks: Buffer[] = []
    let size = 0
    const collect = () => {
      for (;;) {
        const chunk: Buffer | null = this.#zlib.read()
        if (chunk === null) break
        chunks.push(chunk)
        size += chunk.length
      }
      if (size > MAX_BLOCK_BYTES)
        this.#fail?.(new SpdyError(`header block of more than ${MAX_BLOCK_BYTES} bytes`))
    }
    const settle = () => {
      this.#fail = undefined
      this.#zlib.off('readable', collect)
    }
    this.#fail = error => {
      settle()
      this.#zlib.destroy()
      reject(error)
    }
    this.#zlib.on('readable', collect)
    this.#zlib.write(block, error => {
      if (error) return
      collect()
      if (this.#fail === undefined) return
      settle()
      try {
        resolve(parseHeaders(Buffer.concat(chunks)))
      } catch (error) {
        this.#zlib.destroy()
        reject(error)
      }
    })
    return promise
  }

  close(): void {
    this.#fail?.(new SpdyError('the connection was closed'))
    this.#zlib.destroy()
  }
}

/** zlib's header with the checksum of the dictionary, once before the first block. */
const ZLIB_PREFIX = Buffer.from('78bbe3c6a7c2', 'hex')
/** Go's inflater hands a block over only after another, empty one. */
const EMPTY_STORED_BLOCK = Buffer.from('000000ffff', 'hex')

/**
 * A block without headers, which is all that a reply needs, as the first or a later one of our direction. Stored, not
 * compressed: no context to keep, and nothing to learn from lengths.
 */
export function emptyBlock(first: boolean): Buffer {
  return first ? FIRST_EMPTY_BLOCK : LATER_EMPTY_BLOCK
}

const LATER_EMPTY_BLOCK = Buffer.concat([stored(Buffer.alloc(4)), EMPTY_STORED_BLOCK])
const FIRST_EMPTY_BLOCK = Buffer.concat([ZLIB_PREFIX, LATER_EMPTY_BLOCK])

/** A deflate block that holds its bytes as they are (RFC 1951, section 3.2.4). */
function stored(bytes: Buffer): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt16LE(bytes.length, 1)
  header.writeUInt16LE(~bytes.length & 0xffff, 3)
  return Buffer.concat([header, bytes])
}
