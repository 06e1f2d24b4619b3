import { isDomain, parseName } from './reference.ts'
import { isTable, type Place, type Table, TOP, TomlDocument } from './toml-document.ts'

type PullFromMirror = 'all' | 'digest-only' | 'tag-only'
export type ShortNameMode = 'enforcing' | 'permissive' | 'disabled'

type MirrorRule = {
  /** `host[:port][/path]` */
  readonly location: string
  readonly insecure: boolean
  readonly pull: PullFromMirror
  /** `file:line` */
  readonly origin: string
}

export type RegistryRule = {
  /** `host[:port][/path][:tag|@digest]` or `*.domain[/path]` */
  readonly prefix: string
  /** What takes the prefix's place; '' leaves the name as it is. */
  readonly location: string
  readonly insecure: boolean
  readonly blocked: boolean
  readonly mirrors: readonly MirrorRule[]
  /** `file:line` */
  readonly origin: string
}

/** A value with the `file:line` that says so. */
export type Sourced<T> = { readonly value: T; readonly origin: string }

/** One file of containers-registries.conf(5), version 2. undefined: the file doesn't say. */
export type RegistriesFile = {
  readonly searchRegistries: Sourced<readonly string[]> | undefined
  readonly shortNameMode: ShortNameMode | undefined
  /** Names of credential helpers in their order; AUTH_FILES_HELPER stands for the auth files. */
  readonly credentialHelpers: Sourced<readonly string[]> | undefined
  readonly rules: readonly RegistryRule[]
  /** Repository by short name; '' takes back the alias of an earlier file. */
  readonly aliases: ReadonlyMap<string, Sourced<string>>
}

/** The only credential helper that is no program. */
export const AUTH_FILES_HELPER = 'containers-auth.json'

/** What may follow `docker-credential-`. */
export const HELPER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/

const PULL_FROM_MIRROR: readonly PullFromMirror[] = ['all', 'digest-only', 'tag-only']
const SHORT_NAME_MODES: readonly ShortNameMode[] = ['enforcing', 'permissive', 'disabled']

const TOP_KEYS = [
  'unqualified-search-registries',
  'short-name-mode',
  'credential-helpers',
  'additional-layer-store-auth-helper',
  'registry',
  'aliases',
]
const REGISTRY_KEYS = ['prefix', 'location', 'insecure', 'blocked', 'mirror-by-digest-only', 'mirror']
const MIRROR_KEYS = ['location', 'insecure', 'pull-from-mirror']

/** @throws BerthError unknown, with everything that is wrong with the file */
export function parseRegistriesFile(file: string, source: string): RegistriesFile {
  const document = new TomlDocument(file, source)
  const result = readFile(document)
  document.refuse()
  return result
}

function readFile(document: TomlDocument): RegistriesFile {
  const { root } = document
  if (isTable(root.registries)) {
    document.problem(TOP, 'registries', 'version 1 of the format is not supported; write [[registry]] tables')
  } else {
    document.known(root, TOP, TOP_KEYS)
  }
  if ('additional-layer-store-auth-helper' in root) {
    const what = 'additional layer stores are not supported; remove the key'
    document.problem(TOP, 'additional-layer-store-auth-helper', what)
  }
  return {
    searchRegistries: readSearch(document),
    shortNameMode: document.choice(root, TOP, 'short-name-mode', SHORT_NAME_MODES),
    credentialHelpers: readHelpers(document),
    rules: document.tables(root, TOP, 'registry').map((table, index) => readRule(document, table, index)),
    aliases: readAliases(document),
  }
}

function readSearch(document: TomlDocument): Sourced<readonly string[]> | undefined {
  const key = 'unqualified-search-registries'
  const value = document.strings(document.root, TOP, key)
  for (const host of value ?? []) {
    if (!isDomain(host)) document.problem(TOP, key, `${JSON.stringify(host)}: expected host[:port]`)
  }
  return value && { value, origin: document.where(TOP, key) }
}

function readHelpers(document: TomlDocument): Sourced<readonly string[]> | undefined {
  const key = 'credential-helpers'
  const value = document.strings(document.root, TOP, key)
  const wrong = value?.find(name => !HELPER_NAME.test(name))
  if (wrong !== undefined) {
    const expected = `expected what follows "docker-credential-" in a program's name, or "${AUTH_FILES_HELPER}"`
    document.problem(TOP, key, `${JSON.stringify(wrong)}: ${expected}`)
  }
  return value && { value, origin: document.where(TOP, key) }
}

function readRule(document: TomlDocument, table: Table, index: number): RegistryRule {
  const place = { label: `registry ${nameOf(table, index)}`, keys: ['registry', String(index)] }
  document.known(table, place, REGISTRY_KEYS)
  const location = readLocation(document, table, place)
  const prefix = document.text(table, place, 'prefix') || location
  if (!isPrefix(prefix)) {
    const expected = 'expected host[:port][/path][:tag|@digest] or *.domain[/path]'
    document.problem(place, 'prefix', `${expected}, got ${JSON.stringify(prefix)}`)
  } else if (location === '' && !prefix.startsWith('*.')) {
    document.problem(place, 'location', 'is missing; only a prefix "*.domain" does without')
  }
  const byDigest = document.flag(table, place, 'mirror-by-digest-only')
  const mirrors = document.tables(table, place, 'mirror').map((mirror, at) => {
    const below = { label: `${place.label} mirror ${at + 1}`, keys: [...place.keys, 'mirror', String(at)] }
    return readMirror(document, mirror, below, byDigest)
  })
  return {
    prefix,
    location,
    insecure: document.flag(table, place, 'insecure'),
    blocked: document.flag(table, place, 'blocked'),
    mirrors,
    origin: document.where(place),
  }
}

function readMirror(document: TomlDocument, table: Table, place: Place, byDigest: boolean): MirrorRule {
  document.known(table, place, MIRROR_KEYS)
  const location = readLocation(document, table, place)
  if (location === '') document.problem(place, 'location', 'is missing')
  const pull = document.choice(table, place, 'pull-from-mirror', PULL_FROM_MIRROR)
  if (pull !== undefined && byDigest) {
    document.problem(place, 'pull-from-mirror', 'cannot be set together with mirror-by-digest-only')
  }
  const insecure = document.flag(table, place, 'insecure')
  const origin = document.where(place)
  return { location, insecure, pull: pull ?? (byDigest ? 'digest-only' : 'all'), origin }
}

function readAliases(document: TomlDocument): ReadonlyMap<string, Sourced<string>> {
  const place = { label: 'aliases', keys: ['aliases'] }
  const aliases = new Map<string, Sourced<string>>()
  for (const [name, target] of Object.entries(document.table(document.root, TOP, 'aliases') ?? {})) {
    if (!isShortName(name)) {
      document.problem(place, name, 'expected a name without registry, tag and digest')
    } else if (typeof target === 'string' && (target === '' || isRepository(target))) {
      aliases.set(name, { value: target, origin: document.where(place, name) })
    } else {
      const expected = 'expected host/path without tag or digest, or ""'
      document.problem(place, name, `${expected}, got ${JSON.stringify(target)}`)
    }
  }
  return aliases
}

function readLocation(document: TomlDocument, table: Table, place: Place): string {
  const location = document.text(table, place, 'location')
  if (location !== '' && !isLocation(location)) {
    const expected = 'expected host[:port][/path], without "https://" and without a tag'
    document.problem(place, 'location', `${expected}, got ${JSON.stringify(location)}`)
  }
  return location
}

function nameOf(table: Table, index: number): string {
  const name = table.prefix ?? table.location
  return typeof name === 'string' && name !== '' ? JSON.stringify(name) : String(index + 1)
}

/** `host[:port][/path][:tag|@digest]` or `*.domain[/path]`. */
export function isPrefix(text: string): boolean {
  if (text.startsWith('*.')) return isLocation(text.slice(2))
  return isLocation(text) || parsed(text)?.domain !== undefined
}

function isLocation(text: string): boolean {
  const slash = text.indexOf('/')
  if (slash < 0) return isDomain(text)
  // Below a host that is one for certain, so that the first component is not taken for a registry.
  const path = text.slice(slash + 1)
  return isDomain(text.slice(0, slash)) && parsed(`localhost/${path}`)?.path === path
}

function isRepository(text: string): boolean {
  return text.includes('/') && isLocation(text)
}

function isShortName(text: string): boolean {
  const name = parsed(text)
  return name !== undefined && name.domain === undefined && name.path === text
}

function parsed(text: string): ReturnType<typeof parseName> | undefined {
  try {
    return parseName(text)
  } catch {
    return undefined
  }
}
