import { parse, TomlError } from 'smol-toml'
import { BerthError, messageOf } from '../base/errors.ts'
import { nearest } from '../config/nearest.ts'
import { lineOfKeys, pathKey } from '../config/toml-lines.ts'

export type Table = Readonly<Record<string, unknown>>

/** A table of the document: how people find it, and its keys from the root, with the index of each `[[table]]`. */
export type Place = { readonly label: string; readonly keys: readonly string[] }

export const TOP: Place = { label: '', keys: [] }

/** Reads a TOML file of the node strictly; what is wrong is gathered, each with file and line. */
export class TomlDocument {
  readonly file: string
  readonly root: Table
  readonly #problems: string[] = []
  readonly #lines: ReadonlyMap<string, number>

  /** @throws BerthError unknown for what is no TOML */
  constructor(file: string, source: string) {
    this.file = file
    try {
      this.root = parse(source)
    } catch (error) {
      const line = error instanceof TomlError ? `:${error.line}` : ''
      const what = messageOf(error).split('\n')[0]
      throw new BerthError('unknown', `${file}${line}: not valid TOML: ${what}`, error)
    }
    this.#lines = lineOfKeys(source)
  }

  /** @throws BerthError unknown, with everything that was wrong so far */
  refuse(): void {
    if (this.#problems.length > 0) throw new BerthError('unknown', this.#problems.join('; '))
  }

  /** `file:line` of a table, or of a key in it. */
  where(place: Place, key?: string): string {
    const line = this.#lines.get(pathKey(key === undefined ? place.keys : [...place.keys, key]))
    return line === undefined ? this.file : `${this.file}:${line}`
  }

  problem(place: Place, key: string, what: string): void {
    const name = place.label === '' ? key : `${place.label}: ${key}`
    const where = key in this.#tableAt(place) ? this.where(place, key) : this.where(place)
    this.#problems.push(`${where}: ${name}: ${what}`)
  }

  known(table: Table, place: Place, keys: readonly string[]): void {
    for (const key of Object.keys(table)) {
      if (keys.includes(key)) continue
      const like = nearest(key, keys)
      const hint = like === undefined ? `expected one of ${keys.join(', ')}` : `did you mean "${like}"?`
      this.problem(place, key, `unknown key; ${hint}`)
    }
  }

  /** '' if it isn't there. */
  text(table: Table, place: Place, key: string): string {
    const value = table[key] ?? ''
    if (typeof value === 'string') return value
    this.problem(place, key, `expected a string, got ${JSON.stringify(value)}`)
    return ''
  }

  flag(table: Table, place: Place, key: string): boolean {
    const value = table[key] ?? false
    if (typeof value === 'boolean') return value
    this.problem(place, key, `expected true or false, got ${JSON.stringify(value)}`)
    return false
  }

  choice<T extends string>(table: Table, place: Place, key: string, choices: readonly T[]): T | undefined {
    const value = table[key]
    if (value === undefined) return undefined
    const choice = choices.find(name => name === value)
    if (choice === undefined) {
      const expected = choices.map(name => `"${name}"`).join(', ')
      this.problem(place, key, `expected ${expected}, got ${JSON.stringify(value)}`)
    }
    return choice
  }

  strings(table: Table, place: Place, key: string): readonly string[] | undefined {
    const value = table[key]
    if (value === undefined) return undefined
    if (Array.isArray(value) && value.every(item => typeof item === 'string')) return value
    this.problem(place, key, `expected a list of strings, got ${JSON.stringify(value)}`)
    return undefined
  }

  /** A table of tables or values, undefined if it isn't there. */
  table(table: Table, place: Place, key: string): Table | undefined {
    const value = table[key]
    if (value === undefined || isTable(value)) return value
    this.problem(place, key, `expected a table, got ${JSON.stringify(value)}`)
    return undefined
  }

  tables(table: Table, place: Place, key: string): readonly Table[] {
    const value = table[key] ?? []
    if (Array.isArray(value) && value.every(isTable)) return value
    const name = [...place.keys.filter(part => !/^\d+$/.test(part)), key].join('.')
    this.problem(place, key, `expected [[${name}]], got ${JSON.stringify(value)}`)
    return []
  }

  /** An unknown or wrong key has a line of its own; a missing one is said at its table. */
  #tableAt({ keys }: Place): Table {
    let at: unknown = this.root
    for (const key of keys) at = (at as Table | undefined)?.[key]
    return typeof at === 'object' && at !== null ? (at as Table) : {}
  }
}

export function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
