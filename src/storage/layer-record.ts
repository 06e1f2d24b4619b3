/**
 * The record of a layer: what was read from its archive, and what became of it on disk. It is written while the layer
 * is unpacked and holds everything of the archive but the content of files, so that with the layer's directory it
 * gives the very same archive again (export), and tells what the directory has to look like (verify).
 *
 * File: a magic line, then frames of a length (32 bits, little endian) and as many bytes of zstd. Uncompressed they
 * are a run of items: a kind (8 bits), a length (32 bits, little endian) and as many bytes.
 */
import { createHash } from 'node:crypto'
import { createReadStream, readSync, writeSync } from 'node:fs'
import { constants as zlib, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { BerthError } from '../base/errors.ts'

const MAGIC = Buffer.from('berth layer record 1\n')
const HEAD = 5
const LENGTH = 4

// A frame is compressed at once, on the thread that unpacks: large enough to compress well, small enough to hold.
const FRAME = 512 * 1024
/** The longest item: content of an entry that is nowhere on disk comes in pieces of what the archive comes in. */
const MAX_ITEM = 8 * 1024 * 1024
const MAX_FRAME = FRAME + MAX_ITEM + HEAD

const COMPRESSION = { params: { [zlib.ZSTD_c_compressionLevel]: 1 } }

const KINDS = [
  'raw',
  'put',
  'content',
  'link',
  'whiteout',
  'opaque',
  'implied',
  'remove',
  'no-xattr',
  'made',
  'dropped',
  'lossy',
] as const

type Kind = (typeof KINDS)[number]

/** Paths are relative, bytes as latin1 text; '' is the layer's root. */
export type RecordItem =
  /** Bytes of the archive: headers, padding, the end. */
  | { readonly kind: 'raw'; readonly bytes: Buffer }
  /** The entry that was just described is at this path. */
  | { readonly kind: 'put'; readonly path: string }
  /** Here the archive has the content of the file that was put last. */
  | { readonly kind: 'content'; readonly size: number; readonly crc: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }
  | { readonly kind: 'whiteout' | 'opaque' | 'implied' | 'remove' | 'dropped'; readonly path: string }
  /** An attribute of the entry put last that could not be set. */
  | { readonly kind: 'no-xattr'; readonly name: string }
  /** What the commit made of an object, with the layers below it in view. */
  | { readonly kind: 'made'; readonly object: MadeObject }
  /** Content that the archive has is not on disk any more: a later entry took its place. */
  | { readonly kind: 'lossy' }

export type MadeObject = {
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** ms */
  readonly mtimeMs: number
  readonly size: number
  readonly rdev: number
  readonly linkName?: string
  readonly crc?: number
  /** base64 */
  readonly xattrs: Readonly<Record<string, string>>
}

/** Writes the record of a layer that is being unpacked. */
export class RecordWriter {
  readonly #fd: number
  readonly #buffer = Buffer.allocUnsafe(FRAME)
  #length = 0
  #isLossy = false

  /** @param fd a file at its end, which stays the caller's */
  private constructor(fd: number) {
    this.#fd = fd
  }

  static begin(fd: number): RecordWriter {
    writeAll(fd, MAGIC)
    return new RecordWriter(fd)
  }

  /** For what comes to a record that is on disk. */
  static continue(fd: number): RecordWriter {
    return new RecordWriter(fd)
  }

  raw(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += FRAME) this.#item('raw', bytes.subarray(at, at + FRAME))
  }

  put(path: string): void {
    this.#path('put', path)
  }

  content(size: number, crc: number): void {
    const body = Buffer.allocUnsafe(12)
    body.writeDoubleLE(size, 0)
    body.writeUInt32LE(crc, 8)
    this.#item('content', body)
  }

  link(path: string, target: string): void {
    this.#path('link', `${path}\0${target}`)
  }

  whiteout(path: string): void {
    this.#path('whiteout', path)
  }

  opaque(path: string): void {
    this.#path('opaque', path)
  }

  implied(path: string): void {
    this.#path('implied', path)
  }

  /** @param isContentLost it is a file that has content */
  remove(path: string, isContentLost: boolean): void {
    this.#path('remove', path)
    if (!isContentLost || this.#isLossy) return
    this.#isLossy = true
    this.#item('lossy', Buffer.alloc(0))
  }

  noXattr(name: string): void {
    this.#path('no-xattr', name)
  }

  dropped(path: string): void {
    this.#path('dropped', path)
  }

  made(object: MadeObject): void {
    this.#item('made', Buffer.from(JSON.stringify(object)))
  }

  /** Writes what is left. */
  flush(): void {
    if (this.#length === 0) return
    writeFrame(this.#fd, this.#buffer.subarray(0, this.#length))
    this.#length = 0
  }

  #path(kind: Kind, path: string): void {
    this.#item(kind, Buffer.from(path, 'latin1'))
  }

  #item(kind: Kind, body: Buffer): void {
    const length = HEAD + body.length
    if (this.#length + length > FRAME) this.flush()
    if (length > FRAME) {
      const item = Buffer.allocUnsafe(length)
      writeItem(item, 0, kind, body)
      writeFrame(this.#fd, item)
      return
    }
    writeItem(this.#buffer, this.#length, kind, body)
    this.#length += length
  }
}

function writeItem(target: Buffer, at: number, kind: Kind, body: Buffer): void {
  target[at] = KINDS.indexOf(kind)
  target.writeUInt32LE(body.length, at + 1)
  body.copy(target, at + HEAD)
}

function writeFrame(fd: number, items: Buffer): void {
  const compressed = zstdCompressSync(items, COMPRESSION)
  const length = Buffer.allocUnsafe(LENGTH)
  length.writeUInt32LE(compressed.length)
  writeAll(fd, length)
  writeAll(fd, compressed)
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
}

/** The digest of a record's file: what its layer's row keeps. */
export async function digestOfRecord(path: string): Promise<Digest> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: FRAME })) hash.update(chunk as Buffer)
  return digestFromHex(hash.digest('hex'))
}

/**
 * The items of a record, in order. Its bytes are verified already; what is wrong all the same is an error.
 * @param fd read from its beginning on; it stays the caller's
 */
export function* readRecord(fd: number): Generator<RecordItem> {
  const magic = readExactly(fd, 0, MAGIC.length)
  if (magic?.equals(MAGIC) !== true) throw damaged('it does not begin as one')
  let at = MAGIC.length
  for (;;) {
    const length = readExactly(fd, at, LENGTH)?.readUInt32LE()
    if (length === undefined) return
    if (length > MAX_FRAME) throw damaged(`a frame of ${length} bytes`)
    const frame = readExactly(fd, at + LENGTH, length)
    if (frame === undefined) throw damaged('it ends in the middle of a frame')
    yield* itemsOf(zstdDecompressSync(frame, { maxOutputLength: MAX_FRAME }))
    at += LENGTH + length
  }
}

function* itemsOf(frame: Buffer): Generator<RecordItem> {
  for (let at = 0; at < frame.length; ) {
    const kind = KINDS[frame[at]!]
    if (kind === undefined || at + HEAD > frame.length) throw damaged(`no item at byte ${at} of a frame`)
    const length = frame.readUInt32LE(at + 1)
    const end = at + HEAD + length
    if (end > frame.length) throw damaged(`an item of ${length} bytes at byte ${at} of a frame`)
    yield itemOf(kind, frame.subarray(at + HEAD, end))
    at = end
  }
}

function itemOf(kind: Kind, body: Buffer): RecordItem {
  if (kind === 'raw') return { kind, bytes: body }
  if (kind === 'content') return { kind, size: body.readDoubleLE(0), crc: body.readUInt32LE(8) }
  if (kind === 'made') return { kind, object: JSON.parse(body.toString()) as MadeObject }
  if (kind === 'lossy') return { kind }
  const text = body.toString('latin1')
  if (kind === 'no-xattr') return { kind, name: text }
  if (kind !== 'link') return { kind, path: text }
  const [path = '', target = ''] = text.split('\0')
  return { kind, path, target }
}

/** undefined at the end of the file. */
function readExactly(fd: number, at: number, length: number): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(length)
  let read = 0
  while (read < length) {
    const count = readSync(fd, bytes, read, length - read, at + read)
    if (count === 0) {
      if (read === 0) return undefined
      throw damaged('it is shorter than it says')
    }
    read += count
  }
  return bytes
}

function damaged(why: string): BerthError {
  return new BerthError('invalid', `the record of the layer is damaged: ${why}`)
}
