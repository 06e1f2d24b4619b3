/**
 * The fields of a tar archive's blocks: POSIX.1-2017 pax ("ustar Interchange Format", "pax Extended Header"), GNU
 * tar's base-256 numbers, star's shorter prefix. Names are bytes, kept as latin1 text.
 */
import { BerthError } from '../base/errors.ts'

export const BLOCK = 512

/** PAX records by key; values stay bytes, since file capabilities are none of UTF-8's. */
export type PaxRecords = ReadonlyMap<string, Buffer>

/** The fixed fields of one header block. */
export type TarHeader = {
  /** One character; '\0' of pre-POSIX archives included. */
  readonly typeflag: string
  readonly name: string
  readonly linkName: string
  readonly size: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Seconds since 1970. */
  readonly mtime: number
  readonly major: number
  readonly minor: number
}

const MODE_BITS = 0o7777

/**
 * @param block 512 bytes whose checksum was verified
 * @throws BerthError invalid, naming the field
 */
export function parseHeader(block: Buffer): TarHeader {
  const magic = block.toString('latin1', 257, 263)
  const known = magic === 'ustar\0' || magic === 'ustar '
  return {
    typeflag: block.toString('latin1', 156, 157),
    name: nameWithPrefix(block, magic),
    linkName: text(block, 157, 100),
    size: nonNegative('size', numeric('size', block, 124, 12)),
    mode: numeric('mode', block, 100, 8) & MODE_BITS,
    uid: nonNegative('uid', numeric('uid', block, 108, 8)),
    gid: nonNegative('gid', numeric('gid', block, 116, 8)),
    mtime: numeric('mtime', block, 136, 12),
    major: known ? nonNegative('devmajor', numeric('devmajor', block, 329, 8)) : 0,
    minor: known ? nonNegative('devminor', numeric('devminor', block, 337, 8)) : 0,
  }
}

function nameWithPrefix(block: Buffer, magic: string): string {
  const name = text(block, 0, 100)
  if (magic !== 'ustar\0') return name // GNU keeps times where POSIX has the prefix
  const isStar = block.toString('latin1', 508, 512) === 'tar\0'
  const prefix = text(block, 345, isStar ? 131 : 155)
  return prefix === '' ? name : `${prefix}/${name}`
}

/** Sum of all bytes with the checksum's own counted as spaces; some old tars summed them as signed. */
export function hasValidChecksum(block: Buffer): boolean {
  let unsigned = 8 * 0x20
  let signed = unsigned
  for (let i = 0; i < BLOCK; i++) {
    if (i >= 148 && i < 156) continue
    const byte = block[i]!
    unsigned += byte
    signed += byte < 0x80 ? byte : byte - 0x100
  }
  const expected = octal(text(block, 148, 8))
  return expected === unsigned || expected === signed
}

export function isZeroBlock(block: Buffer): boolean {
  for (let i = 0; i < BLOCK; i++) if (block[i] !== 0) return false
  return true
}

/** @throws BerthError invalid: a record's length, its '=' or its final newline is not where it should be */
export function parsePax(data: Buffer): PaxRecords {
  const records = new Map<string, Buffer>()
  let at = 0
  while (at < data.length) {
    const space = data.indexOf(0x20, at)
    const length = space < 0 || space - at > 9 ? Number.NaN : decimal(data.toString('latin1', at, space))
    const end = at + length
    if (!(end <= data.length) || end <= space + 1 || data[end - 1] !== 0x0a) {
      throw malformed(`pax record at byte ${at}: expected "<length> <key>=<value>" and a newline`)
    }
    const equals = data.indexOf(0x3d, space + 1)
    const key = data.toString('latin1', space + 1, equals)
    if (equals <= space + 1 || equals >= end - 1 || key.includes('\0')) {
      throw malformed(`pax record at byte ${at}: expected a key and "="`)
    }
    records.set(key, data.subarray(equals + 1, end - 1))
    at = end
  }
  return records
}

/** A GNU long name: up to the first NUL. */
export function parseLongName(data: Buffer): string {
  return text(data, 0, data.length)
}

/** @throws BerthError invalid unless `value` is a whole decimal number below 2⁵³ */
export function paxInteger(key: string, value: Buffer): number {
  const number = decimal(value.toString('latin1'))
  if (!Number.isSafeInteger(number))
    throw malformed(`pax ${key}: expected a decimal number, got ${shown(value)}`)
  return number
}

/** Nanoseconds of a time that is written as seconds with an optional fraction, what is finer cut off. */
export function paxTime(key: string, value: Buffer): bigint {
  const parts = /^(-?)(\d{1,15})(?:\.(\d{0,32}))?$/.exec(value.toString('latin1'))
  if (parts === null) throw malformed(`pax ${key}: expected seconds, got ${shown(value)}`)
  const [, sign, seconds, fraction = ''] = parts
  const ns = BigInt(`${seconds}${fraction.slice(0, 9).padEnd(9, '0')}`)
  return sign === '-' ? -ns : ns
}

/** @throws BerthError invalid: a name cannot contain a NUL byte */
export function paxName(key: string, value: Buffer): string {
  if (value.includes(0)) throw malformed(`pax ${key}: contains a NUL byte`)
  return value.toString('latin1')
}

export function malformed(what: string): BerthError {
  return new BerthError('invalid', `tar: ${what}`)
}

/** Bytes for a message: printable, and short. */
export function shown(bytes: Buffer | string): string {
  const name = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
  const cut = JSON.stringify(name.toString('utf8', 0, 200))
  return name.length > 200 ? `${cut} (cut)` : cut
}

function text(block: Buffer, offset: number, length: number): string {
  const nul = block.indexOf(0, offset)
  const end = nul < 0 ? offset + length : Math.min(nul, offset + length)
  return block.toString('latin1', offset, end)
}

function numeric(field: string, block: Buffer, offset: number, length: number): number {
  const value =
    (block[offset]! & 0x80) === 0 ? octal(text(block, offset, length)) : base256(block, offset, length)
  if (!Number.isSafeInteger(value)) {
    throw malformed(`${field}: not a number: ${shown(block.subarray(offset, offset + length))}`)
  }
  return value
}

/** Padded with spaces on either side; an empty field is 0. */
function octal(field: string): number {
  const digits = /^[ \0]*([0-7]*)[ \0]*/.exec(field)
  if (digits === null || digits[0].length !== field.length) return Number.NaN
  return digits[1] === '' ? 0 : Number.parseInt(digits[1]!, 8)
}

/** Big-endian two's complement; the topmost bit only says that the field is binary, the one below it is the sign. */
function base256(block: Buffer, offset: number, length: number): number {
  const negative = (block[offset]! & 0x40) !== 0
  let value = BigInt((block[offset]! & 0x7f) | (negative ? 0x80 : 0))
  for (let i = 1; i < length; i++) value = (value << 8n) | BigInt(block[offset + i]!)
  return Number(negative ? BigInt.asIntN(length * 8, value) : value)
}

function decimal(digits: string): number {
  return /^\d{1,16}$/.test(digits) ? Number(digits) : Number.NaN
}

function nonNegative(field: string, value: number): number {
  if (value < 0) throw malformed(`${field}: negative: ${value}`)
  return value
}
