import {
  BLOCK,
  hasValidChecksum,
  isZeroBlock,
  malformed,
  type PaxRecords,
  parseHeader,
  parseLongName,
  parsePax,
  paxInteger,
  paxName,
  paxTime,
  shown,
  type TarHeader,
} from './tar-header.ts'

export type TarEntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo'

export type TarEntry = {
  readonly type: TarEntryType
  /** As it stands in the archive: bytes as latin1 text. */
  readonly name: string
  readonly linkName: string
  /** Bytes of content; 0 for all but files. */
  readonly size: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Seconds since 1970, with a fraction, as near as a number comes. */
  readonly mtime: number
  /** The same in nanoseconds, exactly. */
  readonly mtimeNs: bigint
  readonly major: number
  readonly minor: number
  readonly xattrs: ReadonlyMap<string, Buffer>
}

/** What the reader calls, in the order of the archive: `entry`, then `content` as often as bytes arrive, then `end`. */
export interface TarSink {
  entry(entry: TarEntry): void
  /** The bytes are only lent for the call. */
  content(chunk: Buffer): void
  endOfEntry(): void
}

// What an archive may make us keep in memory. Linux takes paths of 4096 and attribute values of 65 536 bytes.
const MAX_EXTENDED = 1024 * 1024
const MAX_NAME = 4096
const MAX_XATTR = 64 * 1024

/** 1901: file systems keep no earlier time, and would make this of it. */
const OLDEST = -(2n ** 31n) * 1_000_000_000n

const XATTR_KEY = 'SCHILY.xattr.'

const TYPES: Readonly<Record<string, TarEntryType>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file', // "contiguous"
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

const NO_RECORDS: PaxRecords = new Map()

/**
 * Reads a tar archive that is pushed in pieces of any size: ustar, PAX, GNU long names. PAX records win over the
 * header, GNU long names over both; global PAX headers are ignored; sparse files are refused. What follows the two
 * zero blocks at the end is ignored. Memory is bounded by one extended header.
 */
export class TarReader {
  readonly #sink: TarSink
  readonly #raw: (bytes: Buffer) => void
  #state: 'header' | 'extended' | 'skipped' | 'content' | 'ended' = 'header'
  /** Bytes of the archive before the piece in hand. */
  #offset = 0
  /** A header block that came in pieces. */
  readonly #block = Buffer.alloc(BLOCK)
  #blockLength = 0
  #blockStart = 0
  /** Bytes of content or extended header still to come, and of the padding after them. */
  #left = 0
  #padding = 0
  #zeroBlocks = 0
  #extendedType = ''
  #extended: Buffer[] = []
  #pax: PaxRecords = NO_RECORDS
  #longName: string | undefined
  #longLink: string | undefined

  /** @param raw called with everything of the archive that is no content, before what it means; bytes are lent */
  constructor(sink: TarSink, raw: (bytes: Buffer) => void = () => undefined) {
    this.#sink = sink
    this.#raw = raw
  }

  /** @throws BerthError invalid, with the offset in the archive */
  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && this.#state !== 'ended') {
      const used = this.#state === 'header' ? this.#pushHeader(chunk, at) : this.#pushBody(chunk, at)
      at += used
      this.#offset += used
    }
    if (at < chunk.length) this.#raw(chunk.subarray(at))
  }

  /** Says that nothing follows. @throws BerthError invalid if the archive stops in the middle of something */
  end(): void {
    const between = this.#state === 'header' && this.#blockLength === 0 && !this.#isDescribed()
    if (this.#state !== 'ended' && !between) throw malformed(`ends unexpectedly at byte ${this.#offset}`)
  }

  #isDescribed(): boolean {
    return this.#pax !== NO_RECORDS || this.#longName !== undefined || this.#longLink !== undefined
  }

  #pushHeader(chunk: Buffer, at: number): number {
    if (this.#blockLength === 0) this.#blockStart = this.#offset
    if (this.#blockLength === 0 && chunk.length - at >= BLOCK) {
      this.#raw(chunk.subarray(at, at + BLOCK))
      this.#header(chunk.subarray(at, at + BLOCK))
      return BLOCK
    }
    const used = Math.min(BLOCK - this.#blockLength, chunk.length - at)
    this.#raw(chunk.subarray(at, at + used))
    chunk.copy(this.#block, this.#blockLength, at, at + used)
    this.#blockLength += used
    if (this.#blockLength === BLOCK) {
      this.#blockLength = 0
      this.#header(this.#block)
    }
    return used
  }

  #pushBody(chunk: Buffer, at: number): number {
    if (this.#left > 0) {
      const used = Math.min(this.#left, chunk.length - at)
      const piece = chunk.subarray(at, at + used)
      this.#left -= used
      if (this.#state !== 'content') this.#raw(piece)
      if (this.#state === 'content') this.#sink.content(piece)
      else if (this.#state === 'extended') this.#extended.push(Buffer.from(piece))
      if (this.#left === 0) this.#endOfBody()
      return used
    }
    const used = Math.min(this.#padding, chunk.length - at)
    this.#raw(chunk.subarray(at, at + used))
    this.#padding -= used
    if (this.#padding === 0) this.#state = 'header'
    return used
  }

  #endOfBody(): void {
    if (this.#state === 'content') this.#sink.endOfEntry()
    else if (this.#state === 'extended') this.#endOfExtended()
    if (this.#padding === 0) this.#state = 'header'
  }

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#zeroBlocks++
      if (this.#zeroBlocks < 2) return
      if (this.#isDescribed()) throw malformed(`ends at byte ${this.#blockStart} after an extended header`)
      this.#state = 'ended'
      return
    }
    if (this.#zeroBlocks > 0) throw malformed(`single zero block before byte ${this.#blockStart}`)
    if (!hasValidChecksum(block)) {
      throw malformed(`no tar archive: wrong checksum in the header at byte ${this.#blockStart}`)
    }
    const header = parseHeader(block)
    if (header.typeflag === 'x' || header.typeflag === 'L' || header.typeflag === 'K') {
      if (header.size > MAX_EXTENDED) {
        throw malformed(`extended header of ${header.size} bytes, at most ${MAX_EXTENDED} are read`)
      }
      this.#extendedType = header.typeflag
      this.#body('extended', header.size)
    } else if (header.typeflag === 'g') {
      this.#body('skipped', header.size)
    } else {
      this.#entry(header)
    }
  }

  #body(state: 'extended' | 'skipped' | 'content', size: number): void {
    this.#state = state
    this.#left = size
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK
    if (size === 0) this.#endOfBody()
  }

  #endOfExtended(): void {
    const data = Buffer.concat(this.#extended)
    this.#extended = []
    if (this.#extendedType === 'L') this.#longName = parseLongName(data)
    else if (this.#extendedType === 'K') this.#longLink = parseLongName(data)
    else this.#pax = parsePax(data)
  }

  #entry(header: TarHeader): void {
    const entry = describe(header, this.#pax, this.#longName, this.#longLink)
    this.#pax = NO_RECORDS
    this.#longName = undefined
    this.#longLink = undefined
    this.#sink.entry(entry)
    this.#body('content', entry.size)
  }
}

function describe(
  header: TarHeader,
  pax: PaxRecords,
  longName: string | undefined,
  longLink: string | undefined,
): TarEntry {
  // An empty value means that the record does not apply (POSIX pax, "pax Extended Header Keyword Precedence").
  const record = <T>(key: string, read: (key: string, value: Buffer) => T): T | undefined => {
    const value = pax.get(key)
    return value === undefined || value.length === 0 ? undefined : read(key, value)
  }
  const name = longName ?? record('path', paxName) ?? header.name
  const linkName = longLink ?? record('linkpath', paxName) ?? header.linkName
  const size = record('size', paxInteger) ?? header.size
  if (name.length > MAX_NAME)
    throw malformed(`name of ${name.length} bytes, at most ${MAX_NAME}: ${shown(name)}`)
  if (linkName.length > MAX_NAME) {
    throw malformed(`link target of ${linkName.length} bytes, at most ${MAX_NAME}: ${shown(name)}`)
  }
  const type = typeOf(header.typeflag, name)
  const time = record('mtime', paxTime) ?? BigInt(header.mtime) * 1_000_000_000n
  const mtimeNs = time < OLDEST ? OLDEST : time
  return {
    type,
    name,
    linkName,
    // Only files have content, whatever the size field of another entry says.
    size: type === 'file' ? size : 0,
    mode: header.mode,
    uid: record('uid', paxInteger) ?? header.uid,
    gid: record('gid', paxInteger) ?? header.gid,
    mtime: Number(mtimeNs / 1_000_000_000n) + Number(mtimeNs % 1_000_000_000n) / 1e9,
    mtimeNs,
    major: header.major,
    minor: header.minor,
    xattrs: xattrsOf(pax, name),
  }
}

function typeOf(typeflag: string, name: string): TarEntryType {
  // Archives from before POSIX tell a directory by its final slash.
  if (typeflag === '\0' && name.endsWith('/')) return 'directory'
  const type = TYPES[typeflag]
  if (type !== undefined) return type
  if (typeflag === 'S')
    throw malformed(`sparse file ${shown(name)}: sparse files are not supported in layers`)
  throw malformed(`entry ${shown(name)} has the unknown type ${shown(typeflag)}`)
}

function xattrsOf(pax: PaxRecords, name: string): ReadonlyMap<string, Buffer> {
  if (pax === NO_RECORDS) return NO_RECORDS
  const xattrs = new Map<string, Buffer>()
  for (const [key, value] of pax) {
    if (key.startsWith('GNU.sparse.')) {
      throw malformed(`sparse file ${shown(name)}: sparse files are not supported in layers`)
    }
    if (!key.startsWith(XATTR_KEY)) continue
    if (value.length > MAX_XATTR) {
      throw malformed(
        `attribute ${shown(key)} of ${shown(name)}: ${value.length} bytes, at most ${MAX_XATTR}`,
      )
    }
    xattrs.set(key.slice(XATTR_KEY.length), value)
  }
  return xattrs
}
