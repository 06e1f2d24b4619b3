import { parse, TomlError } from 'smol-toml'
import { BerthError, messageOf } from '../base/errors.ts'
import { nearest } from '../config/nearest.ts'
import { lineOfKeys, pathKey } from '../config/toml-lines.ts'
import { isDomain, parseName } from './reference.ts'

type PullFromMirror = 'all' | 'digest-only' | 'tag-only'
export type ShortNameMode = 'enforcing' | 'permissive' | 'disabled'

type MirrorRule = {
  /** `host[:port][/path]` */
  readonly location: string
  readonly insecure: boolean
  readonly pull: PullFromMirror
}

export type RegistryRule = {
  /** `host[:port][/path]` or `*.domain[/path]` */
  readonly prefix: string
  /** What takes the prefix's place; '' leaves the name as it is. */
  readonly location: string
  readonly insecure: boolean
  readonly blocked: boolean
  readonly mirrors: readonly MirrorRule[]
  readonly file: string
}

/** One file of containers-registries.conf(5), version 2. undefined: the file doesn't say. */
export type RegistriesFile = {
  readonly searchRegistries: readonly string[] | undefined
  readonly shortNameMode: ShortNameMode | undefined
  readonly rules: readonly RegistryRule[]
  /** Repository by short name; '' takes back the alias of an earlier file. */
  readonly aliases: ReadonlyMap<string, string>
}

type Table = Readonly<Record<string, unknown>>

/** A table of the document: how people find it, and its keys from the root. */
type Place = { readonly label: string; readonly keys: readonly string[] }

const TOP: Place = { label: '', keys: [] }

const PULL_FROM_MIRROR: readonly PullFromMirror[] = ['all', 'digest-only', 'tag-only']
const SHORT_NAME_MODES: readonly ShortNameMode[] = ['enforcing', 'permissive', 'disabled']
/** The only credential helper that is no program: auth.json itself. */
const AUTH_FILE_HELPER = 'containers-auth.json'

const TOP_KEYS = [
  'unqualified-search-registries',
  'short-name-mode',
  'credential-helpers',
  'registry',
  'aliases',
]
const REGISTRY_KEYS = ['prefix', 'location', 'insecure', 'blocked', 'mirror-by-digest-only', 'mirror']
const MIRROR_KEYS = ['location', 'insecure', 'pull-from-mirror']

/** @throws BerthError unknown, with everything that is wrong with the file */
export function parseRegistriesFile(file: string, source: string): RegistriesFile {
  let document: Table
  try {
    document = parse(source)
  } catch (error) {
    const line = error instanceof TomlError ? `:${error.line}` : ''
    throw new BerthError(
      'unknown',
      `${file}${line}: not valid TOML: ${messageOf(error).split('\n')[0]}`,
      error,
    )
  }
  const reader = new FileReader(file, source)
  const result = reader.read(document)
  if (reader.problems.length > 0) throw new BerthError('unknown', reader.problems.join('; '))
  return result
}

class FileReader {
  readonly problems: string[] = []
  readonly #file: string
  readonly #lines: ReadonlyMap<string, number>

  constructor(file: string, source: string) {
    this.#file = file
    this.#lines = lineOfKeys(source)
  }

  read(document: Table): RegistriesFile {
    const old = document.registries
    if (isTable(old)) {
      this.#problem(TOP, 'registries', 'version 1 of the format is not supported; write [[registry]] tables')
    } else {
      this.#known(document, TOP, TOP_KEYS)
    }
    const helpers = this.#strings(document, TOP, 'credential-helpers') ?? []
    const helper = helpers.find(name => name !== AUTH_FILE_HELPER)
    if (helper !== undefined) {
      this.#problem(
        TOP,
        'credential-helpers',
        `${JSON.stringify(helper)}: credential helper programs are not supported`,
      )
    }
    const searchRegistries = this.#strings(document, TOP, 'unqualified-search-registries')
    for (const host of searchRegistries ?? []) {
      if (!isDomain(host))
        this.#problem(TOP, 'unqualified-search-registries', `${JSON.stringify(host)}: expected host[:port]`)
    }
    return {
      searchRegistries,
      shortNameMode: this.#choice(document, TOP, 'short-name-mode', SHORT_NAME_MODES),
      rules: this.#tables(document, TOP, 'registry').map((table, index) => this.#rule(table, index)),
      aliases: this.#aliases(document),
    }
  }

  #rule(table: Table, index: number): RegistryRule {
    const place = { label: `registry ${nameOf(table, index)}`, keys: ['registry'] }
    this.#known(table, place, REGISTRY_KEYS)
    const location = this.#location(table, place)
    const prefix = this.#text(table, place, 'prefix') || location
    if (!isPrefix(prefix)) {
      this.#problem(
        place,
        'prefix',
        `expected host[:port][/path] or *.domain[/path], got ${JSON.stringify(prefix)}`,
      )
    } else if (location === '' && !prefix.startsWith('*.')) {
      this.#problem(place, 'location', 'is missing; only a prefix "*.domain" does without')
    }
    const byDigest = this.#flag(table, place, 'mirror-by-digest-only')
    const mirrors = this.#tables(table, place, 'mirror').map((mirror, at) => {
      const below = { label: `${place.label} mirror ${at + 1}`, keys: [...place.keys, 'mirror'] }
      return this.#mirror(mirror, below, byDigest)
    })
    return {
      prefix,
      location,
      insecure: this.#flag(table, place, 'insecure'),
      blocked: this.#flag(table, place, 'blocked'),
      mirrors,
      file: this.#file,
    }
  }

  #mirror(table: Table, place: Place, byDigest: boolean): MirrorRule {
    this.#known(table, place, MIRROR_KEYS)
    const location = this.#location(table, place)
    if (location === '') this.#problem(place, 'location', 'is missing')
    const pull = this.#choice(table, place, 'pull-from-mirror', PULL_FROM_MIRROR)
    if (pull !== undefined && byDigest) {
      this.#problem(place, 'pull-from-mirror', 'cannot be set together with mirror-by-digest-only')
    }
    const insecure = this.#flag(table, place, 'insecure')
    return { location, insecure, pull: pull ?? (byDigest ? 'digest-only' : 'all') }
  }

  #aliases(document: Table): ReadonlyMap<string, string> {
    const aliases = new Map<string, string>()
    const table = document.aliases ?? {}
    if (!isTable(table)) {
      this.#problem(TOP, 'aliases', `expected a table, got ${JSON.stringify(table)}`)
      return aliases
    }
    for (const [name, target] of Object.entries(table)) {
      if (typeof target === 'string' && (target === '' || isRepository(target))) {
        aliases.set(name, target)
      } else {
        const expected = 'expected host/path without tag or digest, or ""'
        this.#problem(
          { label: 'aliases', keys: ['aliases'] },
          name,
          `${expected}, got ${JSON.stringify(target)}`,
        )
      }
    }
    return aliases
  }

  #known(table: Table, place: Place, keys: readonly string[]): void {
    for (const key of Object.keys(table)) {
      if (keys.includes(key)) continue
      const like = nearest(key, keys)
      const hint = like === undefined ? `expected one of ${keys.join(', ')}` : `did you mean "${like}"?`
      this.#problem(place, key, `unknown key; ${hint}`)
    }
  }

  #text(table: Table, place: Place, key: string): string {
    const value = table[key] ?? ''
    if (typeof value === 'string') return value
    this.#problem(place, key, `expected a string, got ${JSON.stringify(value)}`)
    return ''
  }

  #flag(table: Table, place: Place, key: string): boolean {
    const value = table[key] ?? false
    if (typeof value === 'boolean') return value
    this.#problem(place, key, `expected true or false, got ${JSON.stringify(value)}`)
    return false
  }

  #choice<T extends string>(table: Table, place: Place, key: string, choices: readonly T[]): T | undefined {
    const value = table[key]
    if (value === undefined) return undefined
    const choice = choices.find(name => name === value)
    if (choice === undefined) {
      const expected = choices.map(name => `"${name}"`).join(', ')
      this.#problem(place, key, `expected ${expected}, got ${JSON.stringify(value)}`)
    }
    return choice
  }

  #strings(table: Table, place: Place, key: string): readonly string[] | undefined {
    const value = table[key]
    if (value === undefined) return undefined
    if (Array.isArray(value) && value.every(item => typeof item === 'string')) return value
    this.#problem(place, key, `expected a list of strings, got ${JSON.stringify(value)}`)
    return undefined
  }

  #tables(table: Table, place: Place, key: string): readonly Table[] {
    const value = table[key] ?? []
    if (Array.isArray(value) && value.every(isTable)) return value
    this.#problem(place, key, `expected [[${[...place.keys, key].join('.')}]], got ${JSON.stringify(value)}`)
    return []
  }

  #location(table: Table, place: Place): string {
    const location = this.#text(table, place, 'location')
    if (location !== '' && !isLocation(location)) {
      const expected = 'expected host[:port][/path], without "https://" and without a tag'
      this.#problem(place, 'location', `${expected}, got ${JSON.stringify(location)}`)
    }
    return location
  }

  #problem(place: Place, key: string, what: string): void {
    // Of a key in several [[registry]] tables only the first line is known; there the label says which one is meant.
    const line = this.#lines.get(pathKey([...place.keys, key]))
    const where =
      line === undefined || (place.keys[0] === 'registry' && !what.startsWith('unknown')) ? '' : `:${line}`
    const name = place.label === '' ? key : `${place.label}: ${key}`
    this.problems.push(`${this.#file}${where}: ${name}: ${what}`)
  }
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function nameOf(table: Table, index: number): string {
  const name = table.prefix ?? table.location
  return typeof name === 'string' && name !== '' ? JSON.stringify(name) : String(index + 1)
}

function isPrefix(text: string): boolean {
  return isLocation(text.startsWith('*.') ? text.slice(2) : text)
}

function isLocation(text: string): boolean {
  const slash = text.indexOf('/')
  if (slash < 0) return isDomain(text)
  return isDomain(text.slice(0, slash)) && isPath(text.slice(slash + 1))
}

function isPath(text: string): boolean {
  try {
    // Below a host that is one for certain, so that the first component is not taken for a registry.
    return parseName(`localhost/${text}`).path === text
  } catch {
    return false
  }
}

function isRepository(text: string): boolean {
  return text.includes('/') && isLocation(text)
}
