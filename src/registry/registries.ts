import { BerthError } from '../base/errors.ts'
import { WatchedFiles } from '../os/watched-files.ts'
import { type Endpoint, plainEndpoint } from './endpoint.ts'
import { filesIn, readText } from './read-text.ts'
import { DEFAULT_DOMAIN, parseName, type Reference, referenceAt } from './reference.ts'
import {
  AUTH_FILES_HELPER,
  parseRegistriesFile,
  type RegistryRule,
  type ShortNameMode,
  type Sourced,
} from './registries-file.ts'
import { hostOf, isLoopback } from './transport/addresses.ts'

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

/** A reference that a name may mean, and what says so. */
export type Meaning = { readonly reference: Reference; readonly origin: string }

const NOT_CONFIGURED = 'not configured'

/** Which endpoints serve a reference, and what a short name stands for: containers-registries.conf(5). */
export class Registries {
  readonly #rules = new Map<string, RegistryRule>()
  readonly #aliases = new Map<string, Sourced<string>>()
  readonly #insecure: readonly string[]
  #search: Sourced<readonly string[]> = { value: [], origin: NOT_CONFIGURED }
  #helpers: Sourced<readonly string[]> = { value: [AUTH_FILES_HELPER], origin: NOT_CONFIGURED }
  #shortNameMode: ShortNameMode = 'permissive'

  /** Later files override: lists and modes as a whole, tables with the same prefix, single aliases. */
  constructor(files: readonly string[], insecure: readonly string[]) {
    this.#insecure = insecure
    for (const file of files) {
      const source = readText(file)
      if (source === undefined) continue
      const content = parseRegistriesFile(file, source)
      this.#search = content.searchRegistries ?? this.#search
      this.#helpers = content.credentialHelpers ?? this.#helpers
      this.#shortNameMode = content.shortNameMode ?? this.#shortNameMode
      for (const rule of content.rules) this.#rules.set(rule.prefix, rule)
      for (const [name, target] of content.aliases) this.#aliases.set(name, target)
    }
  }

  /** Where credentials are looked for, in this order. */
  get credentialHelpers(): Sourced<readonly string[]> {
    return this.#helpers
  }

  /**
   * The references that a name may mean, most likely first. A full name means one.
   *
   * @throws BerthError invalid for what is no reference, or is ambiguous in mode `enforcing`
   */
  meanings(text: string): readonly Meaning[] {
    const { domain, path, version } = parseName(text)
    const on = (host: string, origin: string, repository = path) => ({
      reference: referenceAt(host, repository, version, text),
      origin,
    })
    if (domain !== undefined) return [on(domain, 'the name itself')]
    const alias = this.#aliases.get(path)
    if (alias?.value) {
      const target = parseName(alias.value)
      return [on(target.domain ?? DEFAULT_DOMAIN, `${alias.origin} (alias)`, target.path)]
    }
    const { value: search, origin } = this.#search
    if (search.length === 0) return [on(DEFAULT_DOMAIN, 'the default for short names')]
    if (search.length > 1 && this.#shortNameMode === 'enforcing') {
      const names = search.map(host => `${host}/${path}`).join(', ')
      throw new BerthError(
        'invalid',
        `image name ${JSON.stringify(text)} is short and may mean ${names}: name the registry, or add an alias to registries.conf`,
      )
    }
    return search.map(host => on(host, `${origin} (unqualified-search-registries)`))
  }

  /** The `[[registry]]` table that decides about the reference, if there is one. */
  ruleFor(reference: Reference): RegistryRule | undefined {
    return this.#match(`${reference}`)?.rule
  }

  /**
   * Mirrors in their order, then the registry itself.
   *
   * @throws BerthError unknown if the registry is blocked
   */
  endpoints(reference: Reference): readonly Endpoint[] {
    const match = this.#match(`${reference}`)
    if (match === undefined) return [this.itself(reference)]
    const { rule, length } = match
    if (rule.blocked) {
      throw new BerthError('unknown', `${reference}: registry ${rule.prefix} is blocked by ${rule.origin}`)
    }
    const rest = reference.name.slice(length)
    const unused = unusedFor(reference)
    const location = rule.location === '' ? reference.name : rule.location + rest
    return [
      ...rule.mirrors
        .filter(mirror => mirror.pull !== unused)
        .map(mirror => this.#endpoint(mirror.location + rest, mirror.insecure, true, mirror.origin)),
      this.#endpoint(location, rule.insecure, false, rule.origin),
    ]
  }

  /** The mirrors that are there but not for this kind of reference: sentences with `file:line`. */
  leftOut(reference: Reference): readonly string[] {
    const unused = unusedFor(reference)
    return (this.ruleFor(reference)?.mirrors ?? [])
      .filter(({ pull }) => pull === unused)
      .map(({ origin, location, pull }) => {
        const kind = pull === 'tag-only' ? 'tags' : 'digests'
        return `${origin}: mirror ${location} is for ${kind} only`
      })
  }

  /** The registry that the reference names, as nobody says otherwise. */
  itself(reference: Reference): Endpoint {
    return this.#endpoint(reference.name, false, false, NOT_CONFIGURED)
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

  #endpoint(name: string, insecure: boolean, mirror: boolean, origin: string): Endpoint {
    const slash = name.indexOf('/')
    if (slash < 0) {
      throw new BerthError(
        'unknown',
        `${origin}: leads to ${JSON.stringify(name)}, which names no repository`,
      )
    }
    const host = name.slice(0, slash)
    return plainEndpoint({
      host,
      repository: name.slice(slash + 1),
      insecure: insecure || this.#insecure.includes(host) || isOnNode(host),
      mirror,
      origin,
    })
  }
}

function unusedFor({ digest }: Reference): 'digest-only' | 'tag-only' {
  return digest === undefined ? 'digest-only' : 'tag-only'
}

type Match = { readonly rule: RegistryRule; readonly length: number }

function isCloser(a: Match, b: Match): boolean {
  if (a.length !== b.length) return a.length > b.length
  const wildcards = Number(b.rule.prefix.startsWith('*')) - Number(a.rule.prefix.startsWith('*'))
  return wildcards > 0 || (wildcards === 0 && a.rule.prefix.length > b.rule.prefix.length)
}

/** How many characters of `name` the prefix stands for; 0 is no match. It ends where a part of the name does. */
function matchedLength(name: string, prefix: string): number {
  if (!prefix.startsWith('*.'))
    return isBoundary(name, prefix.length) && name.startsWith(prefix) ? prefix.length : 0
  const suffix = prefix.slice(1)
  const at = name.indexOf(suffix)
  if (at <= 0 || name.slice(0, at).includes('/')) return 0
  return isBoundary(name, at + suffix.length) ? at + suffix.length : 0
}

function isBoundary(name: string, at: number): boolean {
  return at === name.length || '/:@'.includes(name[at]!)
}

/** What never leaves the node needs no TLS, as with Docker. */
function isOnNode(host: string): boolean {
  const url = URL.parse(`http://${host}`)
  return url !== null && isLoopback(hostOf(url))
}
