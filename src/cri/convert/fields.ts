import { isIP } from 'node:net'
import { posix } from 'node:path'
import { type Dict, dict } from '../../base/dict.ts'
import { invalid } from '../../base/errors.ts'

/*
 * Checks of single fields. Each takes the field's path in the client's spelling and throws BerthError invalid, which
 * names it and what was expected.
 */

const CONTROL = /[\x00-\x1f\x7f]/

/** A message that may not be absent. */
export function present<T>(field: string, value: T | null | undefined): T {
  if (value === null || value === undefined) throw invalid(field, 'must be set')
  return value
}

/** Text without control characters: it will stand in a line of some file or on a terminal. */
export function line(field: string, value: string): string {
  if (CONTROL.test(value)) throw invalid(field, 'must not contain control characters')
  return value
}

export function nonEmptyLine(field: string, value: string): string {
  if (value === '') throw invalid(field, 'must not be empty')
  return line(field, value)
}

/** Text that becomes a C string. */
function withoutNul(field: string, value: string): string {
  if (value.includes('\0')) throw invalid(field, 'must not contain a NUL character')
  return value
}

/** Non-empty text without white space, as in a list that is joined by spaces. */
export function word(field: string, value: string): string {
  if (/\s/.test(value)) throw invalid(field, 'must not contain white space')
  return nonEmptyLine(field, value)
}

/** MAX_ARG_STRLEN less its NUL: what execve(2) takes as one argument, or as one variable with its name. */
const MAX_ARGUMENT = 128 * 1024 - 1

/** Text that becomes an argument of a process, or the value of a variable with a name of so many bytes. */
export function argument(field: string, value: string, nameBytes = 0): string {
  return noLonger(field, withoutNul(field, value), MAX_ARGUMENT - nameBytes)
}

export function matching(field: string, value: string, pattern: RegExp, expected: string): string {
  if (!pattern.test(value)) throw invalid(field, `expected ${expected}, got ${JSON.stringify(value)}`)
  return value
}

/** PATH_MAX less its NUL. */
const MAX_PATH = 4095

/** An absolute path without `..`; returned without `.`, doubled and trailing slashes. */
export function absolutePath(field: string, value: string): string {
  if (!value.startsWith('/')) throw invalid(field, `must be an absolute path, got ${JSON.stringify(value)}`)
  return cleanPath(field, value)
}

/** A relative path that stays below where it starts; returned clean. */
export function relativePath(field: string, value: string): string {
  if (value === '') throw invalid(field, 'must not be empty')
  if (value.startsWith('/')) throw invalid(field, `must be a relative path, got ${JSON.stringify(value)}`)
  return cleanPath(field, value)
}

/** A part of the path of a log, clean: the monitor cuts its argument at every colon. */
export function logPart(field: string, path: string, maxBytes: number): string {
  if (path.includes(':')) throw invalid(field, "must not contain ':'")
  return noLonger(field, path, maxBytes)
}

export function noLonger(field: string, value: string, maxBytes: number): string {
  if (Buffer.byteLength(value) > maxBytes) throw invalid(field, `must be at most ${maxBytes} bytes long`)
  return value
}

/** NAME_MAX; the names of Kubernetes' objects are no longer either. */
const MAX_NAME = 255

/** What an object is called: it becomes an argument of programs and a variable of their environment. */
export function objectName(field: string, value: string): string {
  return noLonger(field, nonEmptyLine(field, value), MAX_NAME)
}

function cleanPath(field: string, value: string): string {
  line(field, value)
  if (value.split('/').includes('..')) throw invalid(field, "must not contain '..'")
  noLonger(field, value, MAX_PATH)
  if (value.split('/').some(name => Buffer.byteLength(name) > MAX_NAME)) {
    throw invalid(field, `a name in it must be at most ${MAX_NAME} bytes long`)
  }
  const clean = posix.normalize(value)
  return clean.length > 1 && clean.endsWith('/') ? clean.slice(0, -1) : clean
}

/** A number, or the decimal text of an int64, between two bounds that a double holds exactly. */
export function integer(field: string, value: string | number, min: number, max: number): number {
  const number = Number(value)
  if (number < min || number > max) throw invalid(field, `must be between ${min} and ${max}, got ${value}`)
  return number
}

/** A number of a 64-bit field where everything from 2⁵³ on means "no limit". */
export function clamped(field: string, value: string, min: number): number {
  const number = Number(value)
  if (number < min) throw invalid(field, `must be at least ${min}, got ${value}`)
  return Math.min(number, Number.MAX_SAFE_INTEGER)
}

/** The meaning of an enum name; a value that this version does not know arrives as a number. */
export function choice<T>(field: string, value: string, meanings: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(meanings, value)) return meanings[value] as T
  throw invalid(field, `expected one of ${Object.keys(meanings).join(', ')}, got ${value}`)
}

export function ipAddress(field: string, value: string): string {
  if (isIP(value) === 0) throw invalid(field, `expected an IP address, got ${JSON.stringify(value)}`)
  return value
}

/**
 * Bytes of all labels, or of all annotations, of one object. Kubernetes allows 256 KiB of annotations; every list
 * repeats them.
 */
const MAX_TEXTS = 2 ** 20

/** Labels and annotations. */
export function boundedTexts(field: string, value: Readonly<Record<string, string>>): Dict {
  const bytes = Object.entries(value).reduce(
    (sum, [key, text]) => sum + Buffer.byteLength(key) + Buffer.byteLength(text),
    0,
  )
  if (bytes > MAX_TEXTS) throw invalid(field, `must be at most ${MAX_TEXTS} bytes long in all, got ${bytes}`)
  return textMap(value)
}

/** Of which any texts may be the names and the values. */
export function textMap(value: Readonly<Record<string, string>>): Dict {
  return dict(Object.entries(value))
}

/** `check` for every element, under the field path `field[i]`. */
export function each<T, R>(field: string, values: readonly T[], check: (field: string, value: T) => R): R[] {
  return values.map((value, index) => check(`${field}[${index}]`, value))
}
