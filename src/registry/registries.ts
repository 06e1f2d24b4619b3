import { BlockList, isIP } from 'node:net'
import { BerthError } from '../base/errors.ts'
import { filesIn, readText } from './read-text.ts'
import { DEFAULT_DOMAIN, parseName, type Reference, referenceAt } from './reference.ts'
import { parseRegistriesFile, type RegistryRule, type ShortNameMode } from './registries-file.ts'
import { WatchedFiles } from './watched-files.ts'

/** One place to ask for a repository. */
export type Endpoint = {
  /** `host[:port]` as configured: what credentials and certificates are filed under. */
  readonly host: string
  /** The repository's path on that host. */
  readonly repository: string
  /** Plain http and unverified certificates are allowed. */
  readonly insecure: boolean
  readonly mirror: boolean
}

export type RegistriesOptions = {
  /** registries.conf; need not exist. */
  readonly file: string
  /** Directory of drop-ins `*.conf`; need not exist. */
  readonly directory: string
  /** Further hosts that may be asked insecurely. */
  readonly insecure: readonly string[]
}

/** registries.conf with its drop-ins, read again when they change. */
export function watchRegistries(options: RegistriesOptions): WatchedFiles<Registries> {
  return new WatchedFiles(
    () => [options.file, ...filesIn(options.directory, '.conf')],
    files => new Registries(files, options.insecure),
  )
}

/** Which endpoints serve a reference, and what a short name stands for: containers-registries.conf(5). */
export class Registries {
  readonly #rules = new Map<string, RegistryRule>()
  readonly #aliases = new Map<string, string>()
  readonly #insecure: readonly string[]
  #search: readonly string[] = []
  #shortNameMode: ShortNameMode = 'permissive'

  /** Later files override: lists and modes as a whole, tables with the same prefix, single aliases. */
  constructor(files: readonly string[], insecure: readonly string[]) {
    this.#insecure = insecure
    for (const file of files) {
      const source = readText(file)
      if (source === undefined) continue
      const content = parseRegistriesFile(file, source)
      this.#search = content.searchRegistries ?? this.#search
      this.#shortNameMode = content.shortNameMode ?? this.#shortNameMode
      for (const rule of content.rules) this.#rules.set(rule.prefix, rule)
      for (const [name, target] of content.aliases) this.#aliases.set(name, target)
    }
  }

  /**
   * The references that a name may mean, most likely first. A full name means one.
   *
   * @throws BerthError invalid for what is no reference, or is ambiguous in mode `enforcing`
   */
  candidates(text: string): readonly Reference[] {
    const { domain, path, version } = parseName(text)
    if (domain !== undefined) return [referenceAt(domain, path, version, text)]
    const alias = this.#aliases.get(path)
    if (alias) {
      const target = parseName(alias)
      return [referenceAt(target.domain ?? DEFAULT_DOMAIN, target.path, version, text)]
    }
    if (this.#search.length === 0) return [referenceAt(DEFAULT_DOMAIN, path, version, text)]
    if (this.#search.length > 1 && this.#shortNameMode === 'enforcing') {
      const names = this.#search.map(host => `${host}/${path}`).join(', ')
      throw new BerthError(
        'invalid',
        `image name ${JSON.stringify(text)} is short and may mean ${names}: name the registry, or add an alias to registries.conf`,
      )
    }
    return this.#search.map(host => referenceAt(host, path, version, text))
  }

  /**
   * Mirrors in their order, then the registry itself.
   *
   * @throws BerthError unknown if the registry is blocked
   */
  endpoints(reference: Reference): readonly Endpoint[] {
    const match = this.#match(reference.name)
    if (match === undefined) return [this.#endpoint(reference.name, false, false)]
    const { rule, length } = match
    if (rule.blocked) {
      throw new BerthError('unknown', `${reference}: registry ${rule.prefix} is blocked by ${rule.file}`)
    }
    const rest = reference.name.slice(length)
    const unused = reference.digest === undefined ? 'digest-only' : 'tag-only'
    return [
      ...rule.mirrors
        .filter(mirror => mirror.pull !== unused)
        .map(mirror => this.#endpoint(mirror.location + rest, mirror.insecure, true)),
      this.#endpoint(rule.location === '' ? reference.name : rule.location + rest, rule.insecure, false),
    ]
  }

  /** The rule that covers most of the name; of equals, one without `*`, then the longer one. */
  #match(name: string): Match | undefined {
    let best: Match | undefined
    for (const rule of this.#rules.values()) {
      const length = matchedLength(name, rule.prefix)
      if (length > 0 && (best === undefined || isCloser({ rule, length }, best))) best = { rule, length }
    }
    return best
  }

  #endpoint(name: string, insecure: boolean, mirror: boolean): Endpoint {
    const slash = name.indexOf('/')
    if (slash < 0)
      throw new BerthError(
        'unknown',
        `registries.conf leads to ${JSON.stringify(name)}, which names no repository`,
      )
    const host = name.slice(0, slash)
    return {
      host,
      repository: name.slice(slash + 1),
      insecure: insecure || this.#insecure.includes(host) || isLoopback(host),
      mirror,
    }
  }
}

type Match = { readonly rule: RegistryRule; readonly length: number }

function isCloser(a: Match, b: Match): boolean {
  if (a.length !== b.length) return a.length > b.length
  const wildcards = Number(b.rule.prefix.startsWith('*')) - Number(a.rule.prefix.startsWith('*'))
  return wildcards > 0 || (wildcards === 0 && a.rule.prefix.length > b.rule.prefix.length)
}

/** How many characters of `name` the prefix stands for; 0 is no match. It ends at a port or a path component. */
function matchedLength(name: string, prefix: string): number {
  if (!prefix.startsWith('*.'))
    return isBoundary(name, prefix.length) && name.startsWith(prefix) ? prefix.length : 0
  const suffix = prefix.slice(1)
  const at = name.indexOf(suffix)
  if (at <= 0 || name.slice(0, at).includes('/')) return 0
  return isBoundary(name, at + suffix.length) ? at + suffix.length : 0
}

function isBoundary(name: string, at: number): boolean {
  return at === name.length || name[at] === '/' || name[at] === ':'
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** What never leaves the node needs no TLS, as with Docker. */
function isLoopback(host: string): boolean {
  const name = URL.parse(`http://${host}`)?.hostname.replace(/^\[|\]$/g, '') ?? ''
  const family = isIP(name)
  if (family === 0) return name === 'localhost'
  return LOOPBACK.check(name, family === 6 ? 'ipv6' : 'ipv4')
}
