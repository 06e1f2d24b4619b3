import { isIPv4, isIPv6 } from 'node:net'
import { type Digest, isDigest, parseDigest } from '../base/digest.ts'
import { BerthError } from '../base/errors.ts'

export const DEFAULT_DOMAIN = 'docker.io'
const OFFICIAL_PATH = 'library'
const DEFAULT_TAG = 'latest'

// Limits of the distribution specification ("Pulling manifests") and of Docker's reference grammar.
const MAX_NAME = 255
const MAX_TAG = 128
/** The longest name, tag and digest with their separators; longer input is refused unread. */
const MAX_REFERENCE = MAX_NAME + 1 + MAX_TAG + 1 + 'sha256:'.length + 64

/**
 * A normalised image name: `docker.io/library/busybox:latest`. It has a tag or a digest, never both: of
 * `name:tag@digest` the digest decides, and a tag that nobody checked must not be recorded.
 */
export class Reference {
  /** `host[:port]` */
  readonly domain: string
  readonly path: string
  readonly tag: string | undefined
  readonly digest: Digest | undefined

  constructor(domain: string, path: string, version: { readonly tag: string } | { readonly digest: Digest }) {
    this.domain = domain
    this.path = path
    this.tag = 'tag' in version ? version.tag : undefined
    this.digest = 'digest' in version ? version.digest : undefined
  }

  /** The repository: `docker.io/library/busybox`. */
  get name(): string {
    return `${this.domain}/${this.path}`
  }

  toString(): string {
    return this.digest === undefined ? `${this.name}:${this.tag}` : `${this.name}@${this.digest}`
  }

  /** As people type it: `busybox:latest`. Parses to the same reference. */
  get familiar(): string {
    const text = this.toString()
    const short = text.slice(this.domain.length + 1)
    const shortest = short.slice(OFFICIAL_PATH.length + 1)
    return [shortest, short].find(form => parses(form, text)) ?? text
  }

  withDigest(digest: Digest): Reference {
    return new Reference(this.domain, this.path, { digest })
  }
}

/** What a text says before a registry is chosen for it. */
export type ParsedName = {
  /** undefined: a short name. */
  readonly domain: string | undefined
  readonly path: string
  readonly version: { readonly tag: string } | { readonly digest: Digest }
}

/**
 * Normalises like Docker: no registry means `defaultDomain`, a single component on docker.io is below `library/`,
 * neither tag nor digest means `:latest`.
 *
 * @throws BerthError invalid
 */
export function parseReference(text: string, defaultDomain = DEFAULT_DOMAIN): Reference {
  const { domain, path, version } = parseName(text)
  return referenceAt(domain ?? defaultDomain, path, version, text)
}

/** @throws BerthError invalid */
export function parseName(text: string): ParsedName {
  if (text === '') throw invalidReference(text, 'it is empty')
  if (text.length > MAX_REFERENCE) {
    throw invalidReference(
      `${text.slice(0, 64)}…`,
      `it has ${text.length} characters, at most ${MAX_REFERENCE} can be right`,
    )
  }
  const at = text.indexOf('@')
  const nameAndTag = at < 0 ? text : text.slice(0, at)
  const digest = at < 0 ? undefined : digestOf(text.slice(at + 1), text)
  const { name, tag } = splitTag(nameAndTag)
  if (tag !== undefined) checkTag(tag, text)
  const { domain, path } = splitDomain(name)
  if (domain !== undefined && !isDomain(domain)) {
    throw invalidReference(text, `${JSON.stringify(domain)} is no registry: expected host[:port]`)
  }
  if (domain === undefined && isBareHex(path)) throw invalidReference(text, 'an image id is no name')
  for (const component of path.split('/')) checkComponent(component, text)
  return { domain, path, version: digest === undefined ? { tag: tag ?? DEFAULT_TAG } : { digest } }
}

/** The reference that a parsed name is on a registry. */
export function referenceAt(
  domain: string,
  path: string,
  version: ParsedName['version'],
  text: string,
): Reference {
  const host = domain === `index.${DEFAULT_DOMAIN}` ? DEFAULT_DOMAIN : domain
  const full = host === DEFAULT_DOMAIN && !path.includes('/') ? `${OFFICIAL_PATH}/${path}` : path
  if (host.length + 1 + full.length > MAX_NAME) {
    throw invalidReference(text, `the repository name is longer than ${MAX_NAME} characters`)
  }
  return new Reference(host, full, version)
}

function parses(short: string, canonical: string): boolean {
  try {
    return parseReference(short).toString() === canonical
  } catch {
    return false
  }
}

function invalidReference(text: string, why: string): BerthError {
  return new BerthError('invalid', `image reference ${JSON.stringify(text)}: ${why}`)
}

function digestOf(digest: string, text: string): Digest {
  if (!isDigest(digest))
    throw invalidReference(text, 'after "@" expected "sha256:" and 64 lower-case hex digits')
  return parseDigest(digest)
}

/** A colon after the last slash begins the tag; one before it belongs to a port. */
function splitTag(text: string): { name: string; tag: string | undefined } {
  const colon = text.lastIndexOf(':')
  if (colon <= text.lastIndexOf('/')) return { name: text, tag: undefined }
  return { name: text.slice(0, colon), tag: text.slice(colon + 1) }
}

/** The first component is a registry if it could not be a path component of Docker Hub. */
function splitDomain(name: string): { domain: string | undefined; path: string } {
  const slash = name.indexOf('/')
  if (slash < 0) return { domain: undefined, path: name }
  const first = name.slice(0, slash)
  const isHost =
    first.includes('.') || first.includes(':') || first === 'localhost' || first !== first.toLowerCase()
  return isHost ? { domain: first, path: name.slice(slash + 1) } : { domain: undefined, path: name }
}

/** `host[:port]`: a DNS name, an IPv4 address or an IPv6 address in brackets. */
export function isDomain(text: string): boolean {
  const { host, port } = splitPort(text)
  if (
    port !== undefined &&
    !(port.length <= 5 && isAll(port, isDigit) && Number(port) >= 1 && Number(port) <= 65_535)
  )
    return false
  if (host.startsWith('[')) return host.endsWith(']') && isIPv6(host.slice(1, -1)) && !host.includes('%')
  const labels = host.split('.')
  // A URL takes what ends in a number for an IPv4 address, in whatever spelling: 127.1, 0x7f000001.
  if (isNumber(labels.at(-1)!)) return isIPv4(host)
  return labels.every(isHostLabel)
}

function isNumber(label: string): boolean {
  if (isAll(label, isDigit)) return label !== ''
  return label.toLowerCase().startsWith('0x') && isAll(label.slice(2).toLowerCase(), isHex)
}

function splitPort(text: string): { host: string; port: string | undefined } {
  const colon = text.lastIndexOf(':')
  if (colon < 0 || colon < text.lastIndexOf(']')) return { host: text, port: undefined }
  return { host: text.slice(0, colon), port: text.slice(colon + 1) }
}

function isHostLabel(label: string): boolean {
  return (
    label !== '' &&
    isAll(label, code => isLetterOrDigit(code) || code === DASH) &&
    !label.startsWith('-') &&
    !label.endsWith('-')
  )
}

/** Runs of lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`. */
function checkComponent(component: string, text: string): void {
  let separator = ''
  for (let index = 0; index < component.length; index++) {
    const code = component.charCodeAt(index)
    if (isDigit(code) || isLower(code)) {
      separator = ''
    } else if (index > 0 && (code === DOT || code === UNDERSCORE || code === DASH)) {
      separator += component[index]
      if (!isSeparator(separator)) throw badComponent(component, text)
    } else {
      throw badComponent(component, text)
    }
  }
  if (component === '' || separator !== '') throw badComponent(component, text)
}

function isSeparator(text: string): boolean {
  return text === '.' || text === '_' || text === '__' || isAll(text, code => code === DASH)
}

function badComponent(component: string, text: string): BerthError {
  const why =
    component === ''
      ? 'a part of the name is empty'
      : `${JSON.stringify(component)}: expected lower-case letters and digits, separated by ".", "_", "__" or "-"`
  return invalidReference(text, why)
}

function checkTag(tag: string, text: string): void {
  const good =
    tag !== '' &&
    tag.length <= MAX_TAG &&
    isAll(tag, code => isLetterOrDigit(code) || code === UNDERSCORE || code === DOT || code === DASH) &&
    !tag.startsWith('.') &&
    !tag.startsWith('-')
  if (!good)
    throw invalidReference(text, `tag ${JSON.stringify(tag)}: expected [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`)
}

const DASH = 0x2d
const DOT = 0x2e
const UNDERSCORE = 0x5f

function isAll(text: string, test: (code: number) => boolean): boolean {
  for (let index = 0; index < text.length; index++) if (!test(text.charCodeAt(index))) return false
  return true
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}

function isLower(code: number): boolean {
  return code >= 0x61 && code <= 0x7a
}

function isLetterOrDigit(code: number): boolean {
  return isDigit(code) || isLower(code) || (code >= 0x41 && code <= 0x5a)
}

function isHex(code: number): boolean {
  return isDigit(code) || (code >= 0x61 && code <= 0x66)
}

function isBareHex(text: string): boolean {
  return text.length === 64 && isAll(text, isHex)
}
