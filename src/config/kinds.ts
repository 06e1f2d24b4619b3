import { posix } from 'node:path'

/** What a TOML document can hold. Dates do not occur in this configuration. */
export type TomlValue =
  | string
  | number
  | boolean
  | readonly TomlValue[]
  | { readonly [key: string]: TomlValue }

/** A value of the wrong form. The message says what was expected; the caller adds file, line and key. */
export class Mismatch extends Error {
  constructor(expected: string, got: unknown) {
    super(`expected ${expected}, got ${shown(got)}`)
  }
}

/**
 * One form of value: how it is read from TOML and from text (flags, environment), and how it is written. Reading
 * throws Mismatch.
 */
export type Kind<T> = {
  /** Completes "expected …", and stands in the documentation. */
  readonly expected: string
  fromToml(value: unknown): T
  /** A flag may be given several times: a list takes every text, everything else the last one. */
  fromTexts(texts: readonly string[]): T
  toToml(value: T): TomlValue
}

function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return 'a table'
  const text = typeof value === 'bigint' ? String(value) : JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

type Reader<T> = (value: unknown) => T

function scalar<T>(expected: string, fromToml: Reader<T>, fromText: (text: string) => T): Kind<T> {
  return {
    expected,
    fromToml,
    fromTexts: texts => fromText(texts.at(-1) ?? ''),
    toToml: value => value as TomlValue,
  }
}

/** @param normalise returns undefined for a text that is not of this form */
export function text(
  expected = 'a string',
  normalise: (text: string) => string | undefined = t => t,
): Kind<string> {
  const read = (value: unknown): string => {
    const result = typeof value === 'string' && !/[\x00-\x1f\x7f]/.test(value) ? normalise(value) : undefined
    if (result === undefined) throw new Mismatch(expected, value)
    return result
  }
  return scalar(expected, read, read)
}

function absolutePath(value: string): string | undefined {
  if (!value.startsWith('/') || value.split('/').includes('..')) return undefined
  return value === '/' ? value : posix.normalize(value).replace(/\/$/, '')
}

export const path = text('an absolute path without ".."', absolutePath)

export const optionalPath = text('an absolute path without "..", or ""', value =>
  value === '' ? value : absolutePath(value),
)

export const gzipProgram = text('an absolute path without "..", "builtin" or ""', value =>
  value === '' || value === 'builtin' ? value : absolutePath(value),
)

/** A unix socket: a path, or `unix://` and a path, as Kubernetes writes endpoints. */
export const socket = text('the path of a unix socket, or ""', value =>
  value === '' ? value : absolutePath(value.replace(/^unix:\/\//, '')),
)

const yes: Record<string, boolean> = { true: true, '1': true, yes: true, false: false, '0': false, no: false }

export const boolean: Kind<boolean> = scalar(
  'true or false',
  value => {
    if (typeof value !== 'boolean') throw new Mismatch('true or false', value)
    return value
  },
  given => {
    // A flag without a value says yes.
    const value = given === '' ? true : yes[given.toLowerCase()]
    if (value === undefined) throw new Mismatch('true or false', given)
    return value
  },
)

export function integer(min: number, max: number): Kind<number> {
  const expected = `a whole number from ${min} to ${max}`
  const read = (value: unknown): number => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw new Mismatch(expected, value)
    }
    return value
  }
  return scalar(expected, read, given => {
    if (!/^-?[0-9]+$/.test(given)) throw new Mismatch(expected, given)
    return read(Number(given))
  })
}

/** CRI-O writes ports as strings; both forms are read. */
export const port: Kind<number> = (() => {
  const number = integer(0, 65535)
  const fromToml = (value: unknown) =>
    typeof value === 'string' ? number.fromTexts([value]) : number.fromToml(value)
  return { ...number, fromToml }
})()

export function choice<const T extends string>(...values: readonly T[]): Kind<T> {
  const expected = `one of ${values.map(value => JSON.stringify(value)).join(', ')}`
  const read = (value: unknown): T => {
    const found = values.find(candidate => candidate === value)
    if (found === undefined) throw new Mismatch(expected, value)
    return found
  }
  return scalar(expected, read, read)
}

/** From flags and the environment: separated by commas, and several flags add up. */
export function list(item: Kind<string>): Kind<readonly string[]> {
  const expected = `a list, each item ${item.expected}`
  return {
    expected,
    fromToml: value => {
      if (!Array.isArray(value)) throw new Mismatch(expected, value)
      return value.map(entry => item.fromToml(entry))
    },
    fromTexts: texts =>
      texts
        .flatMap(given => given.split(','))
        .filter(given => given !== '')
        .map(given => item.fromTexts([given.trim()])),
    toToml: value => value,
  }
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Go's spelling (`1m30s`); milliseconds inside. */
export const duration: Kind<number> = (() => {
  const expected = 'a duration such as "500ms", "30s", "5m" or "1h30m"'
  const read = (value: unknown): number => {
    if (value === '0' || value === 0) return 0
    if (typeof value !== 'string' || !/^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$/.test(value)) {
      throw new Mismatch(expected, value)
    }
    const parts = [...value.matchAll(/([0-9.]+)(ms|s|m|h)/g)]
    const total = parts.reduce((sum, part) => sum + Number(part[1]) * (UNIT_MS[part[2]!] ?? 0), 0)
    // Node's timers end at 2³¹−1 ms.
    if (total > 2_147_483_647) throw new Mismatch(`${expected}, at most 596h`, value)
    return Math.round(total)
  }
  return { ...scalar(expected, read, read), toToml: formatDuration }
})()

function formatDuration(ms: number): string {
  if (ms === 0) return '0s'
  let rest = ms
  let result = ''
  for (const [unit, size] of Object.entries(UNIT_MS).reverse()) {
    const count = Math.floor(rest / size)
    if (count > 0) result += `${count}${unit}`
    rest -= count * size
  }
  return result
}

const UNIT_BYTES: Record<string, number> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

export const size: Kind<number> = (() => {
  const expected = 'a number of bytes, or a size such as "512MiB" or "64GiB"'
  const read = (value: unknown): number => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
    const match = typeof value === 'string' ? /^([0-9]+) ?([KMGT]iB|B|)$/.exec(value) : null
    const bytes = match === null ? Number.NaN : Number(match[1]) * (UNIT_BYTES[match[2] ?? ''] ?? Number.NaN)
    if (!Number.isSafeInteger(bytes)) throw new Mismatch(expected, value)
    return bytes
  }
  return { ...scalar(expected, read, read), toToml: formatSize }
})()

function formatSize(bytes: number): TomlValue {
  if (bytes === 0) return bytes
  const unit = Object.entries(UNIT_BYTES).findLast(([, factor]) => bytes % factor === 0 && factor > 1)
  return unit === undefined ? bytes : `${bytes / unit[1]}${unit[0]}`
}
