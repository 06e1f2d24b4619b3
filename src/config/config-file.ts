import { readFileSync, statSync } from 'node:fs'
import { parse, TomlError } from 'smol-toml'
import { messageOf } from '../base/errors.ts'
import { fullName } from './config.ts'
import type { ForeignKey } from './foreign-keys.ts'
import { FOREIGN_HANDLER_KEYS, FOREIGN_KEYS, WORKLOADS } from './foreign-keys.ts'
import type { Key } from './key.ts'
import { HANDLER_KEYS, SECTIONS } from './keys.ts'
import { Mismatch } from './kinds.ts'
import { nearest } from './nearest.ts'
import { lineOfKeys, pathKey } from './toml-lines.ts'

/** One key with its value, from a file, a variable or a flag. */
export type Setting = {
  readonly section: string
  readonly name: string
  readonly value: unknown
  /** `/etc/berth/berth.conf:12`, `BERTH_ROOT`, `--root` */
  readonly origin: string
  /** The entry of `runtimes`, for keys of handlers. */
  readonly handler?: string
}

export type FileContent = {
  readonly settings: readonly Setting[]
  readonly problems: readonly string[]
  readonly warnings: readonly string[]
}

/** A configuration is typed by people; more than this is another kind of file. */
const MAX_FILE_BYTES = 1 << 20

const ROOTS = ['crio', 'berth']

type Table = Readonly<Record<string, unknown>>

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** Reads one file and finds everything that is wrong with it. Never throws. */
export function readConfigFile(file: string): FileContent {
  let source: string
  try {
    const stat = statSync(file)
    if (!stat.isFile()) return failed(`${file}: not a regular file`)
    if (stat.size > MAX_FILE_BYTES) return failed(`${file}: longer than ${MAX_FILE_BYTES} bytes`)
    source = readFileSync(file, 'utf8')
  } catch (error) {
    return failed(`${file}: cannot be read: ${messageOf(error)}`)
  }
  try {
    return new Checker(file, source).check(parse(source))
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [first = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n')
    return failed(`${file}:${error.line}: not valid TOML: ${first}`)
  }
}

function failed(problem: string): FileContent {
  return { settings: [], problems: [problem], warnings: [] }
}

class Checker {
  readonly #file: string
  readonly #lines: ReadonlyMap<string, number>
  readonly #settings: Setting[] = []
  readonly #problems: string[] = []
  readonly #warnings: string[] = []
  /** Full names seen, for a key that stands below [crio] and [berth]. */
  readonly #seen = new Map<string, string>()

  constructor(file: string, source: string) {
    this.#file = file
    this.#lines = lineOfKeys(source)
  }

  check(document: Table): FileContent {
    for (const [root, tables] of Object.entries(document)) {
      if (!ROOTS.includes(root)) {
        this.#problem([root], `unknown table; everything stands below [crio] or [berth]${like(root, ROOTS)}`)
      } else if (!isTable(tables)) {
        this.#problem([root], `expected a table, got ${JSON.stringify(tables)}`)
      } else {
        this.#checkRoot(root, tables)
      }
    }
    return { settings: this.#settings, problems: this.#problems, warnings: this.#warnings }
  }

  #checkRoot(root: string, tables: Table): void {
    const sections = [...Object.keys(SECTIONS), ...Object.keys(FOREIGN_KEYS)].filter(name => name !== 'crio')
    for (const [name, value] of Object.entries(tables)) {
      const path = [root, name]
      if (!sections.includes(name)) {
        if (isTable(value)) this.#problem(path, `unknown table${like(name, sections)}`)
        else this.#key(path, 'crio', name, value)
      } else if (!isTable(value)) {
        this.#problem(path, `expected a table, got ${JSON.stringify(value)}`)
      } else {
        for (const [key, entry] of Object.entries(value)) this.#key([...path, key], name, key, entry)
      }
    }
  }

  #key(path: readonly string[], section: string, name: string, value: unknown): void {
    const known = SECTIONS[section]?.[name]
    const foreign = FOREIGN_KEYS[section]?.[name]
    if (known !== undefined) this.#known(path, known, { section, name, value, origin: this.#where(path) })
    else if (foreign !== undefined) this.#foreign(path, foreign, value)
    else if (section === 'runtime' && name === 'runtimes') this.#handlers(path, value)
    else if (section === 'runtime' && name === 'workloads') this.#foreign(path, WORKLOADS, value)
    else this.#problem(path, `unknown key${suggestion(section, name)}`)
  }

  #handlers(path: readonly string[], value: unknown): void {
    if (!isTable(value)) {
      this.#problem(path, `expected a table of runtimes, got ${JSON.stringify(value)}`)
      return
    }
    for (const [handler, entries] of Object.entries(value)) {
      const below = [...path, handler]
      if (!isTable(entries)) {
        this.#problem(below, `expected a table, got ${JSON.stringify(entries)}`)
        continue
      }
      // An empty table still names a handler.
      this.#settings.push({ section: 'runtime', name: '', value: '', origin: this.#where(below), handler })
      for (const [name, entry] of Object.entries(entries))
        this.#handlerKey([...below, name], handler, name, entry)
    }
  }

  #handlerKey(path: readonly string[], handler: string, name: string, value: unknown): void {
    const keys: Readonly<Record<string, Pick<Key<unknown>, 'kind'>>> = HANDLER_KEYS
    const known = keys[name]
    const foreign = FOREIGN_HANDLER_KEYS[name]
    if (known !== undefined) {
      this.#known(path, known, { section: 'runtime', name, value, origin: this.#where(path), handler })
    } else if (foreign !== undefined) {
      this.#foreign(path, foreign, value)
    } else {
      this.#problem(
        path,
        `unknown key${like(name, [...Object.keys(keys), ...Object.keys(FOREIGN_HANDLER_KEYS)])}`,
      )
    }
  }

  #known(path: readonly string[], key: Pick<Key<unknown>, 'kind'>, setting: Setting): void {
    const name = path.slice(1).join('.')
    const before = this.#seen.get(name)
    if (before !== undefined) {
      this.#problem(path, `given twice, also as ${before}`)
      return
    }
    this.#seen.set(name, `${path.join('.')} in line ${this.#line(path)}`)
    try {
      this.#settings.push({ ...setting, value: key.kind.fromToml(setting.value) })
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error
      this.#problem(path, error.message)
    }
  }

  #foreign(path: readonly string[], key: ForeignKey, value: unknown): void {
    const text = JSON.stringify(value)
    if (key.harmless.some(harmless => JSON.stringify(harmless) === text)) return
    if (key.refuse) this.#problem(path, `cannot be ${text}: ${key.reason}`)
    else this.#warnings.push(`${this.#where(path)}: ${path.join('.')} has no effect in Berth: ${key.reason}`)
  }

  #problem(path: readonly string[], what: string): void {
    this.#problems.push(`${this.#where(path)}: ${path.join('.')}: ${what}`)
  }

  #line(path: readonly string[]): number | undefined {
    return this.#lines.get(pathKey(path))
  }

  #where(path: readonly string[]): string {
    const line = this.#line(path)
    return line === undefined ? this.#file : `${this.#file}:${line}`
  }
}

function like(name: string, candidates: readonly string[]): string {
  const found = nearest(name, candidates)
  return found === undefined ? '' : `; did you mean "${found}"?`
}

/** The same name in another table, else the nearest name in this table, else the nearest anywhere. */
function suggestion(section: string, name: string): string {
  const names = new Map<string, string[]>()
  for (const table of [SECTIONS, FOREIGN_KEYS]) {
    for (const [other, keys] of Object.entries(table)) {
      for (const key of Object.keys(keys)) names.set(key, [...(names.get(key) ?? []), other])
    }
  }
  const here = [...names].filter(([, sections]) => sections.includes(section)).map(([key]) => key)
  const found = names.has(name) ? name : (nearest(name, here) ?? nearest(name, names.keys()))
  if (found === undefined) return ''
  const sections = names.get(found) ?? []
  const full = sections.includes(section) ? found : fullName(sections[0] ?? section, found)
  return `; did you mean "${full}"?`
}
