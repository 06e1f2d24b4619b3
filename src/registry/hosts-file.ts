import { posix } from 'node:path'
import { messageOf } from '../base/errors.ts'
import { duration } from '../config/kinds.ts'
import type { EndpointTls, Scheme } from './endpoint.ts'
import { isDomain } from './reference.ts'
import { isTable, type Place, type Table, TOP, TomlDocument } from './toml-document.ts'

/** One host of a hosts.toml. */
export type HostRule = {
  /** undefined: the registry itself, at its own address. */
  readonly address: { readonly scheme: Scheme; readonly host: string; readonly root: string } | undefined
  readonly resolves: boolean
  readonly pulls: boolean
  /** undefined: the file doesn't say. */
  readonly skipVerify: boolean | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly tls: EndpointTls
  readonly connectTimeoutMs: number | undefined
  /** `file:line` */
  readonly origin: string
}

/** containerd's `hosts.toml`: the hosts to ask in order, and after them the server. */
export type HostsFile = {
  readonly file: string
  readonly hosts: readonly HostRule[]
  readonly server: HostRule
}

const HOST_KEYS = [
  'capabilities',
  'ca',
  'client',
  'skip_verify',
  'header',
  'override_path',
  'dial_timeout',
] as const
const TOP_KEYS = ['server', 'host', ...HOST_KEYS]
const CAPABILITIES = ['pull', 'resolve', 'push']

/** What the client itself decides, or what would change where a message ends. */
const OWN_HEADERS = [
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authorization',
  'range',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]
const HEADER_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/
const HEADER_VALUE = /^[\x20-\x7e]*$/

/** @throws BerthError unknown, with everything that is wrong with the file */
export function parseHostsFile(file: string, source: string): HostsFile {
  const document = new TomlDocument(file, source)
  const { root } = document
  document.known(root, TOP, TOP_KEYS)
  const server = document.text(root, TOP, 'server')
  const hosts = document.table(root, TOP, 'host') ?? {}
  const result = {
    file,
    hosts: Object.entries(hosts).flatMap(([url, table]) => readHost(document, url, table) ?? []),
    server: readRule(document, root, TOP, server, 'server'),
  }
  document.refuse()
  return result
}

function readHost(document: TomlDocument, url: string, table: unknown): HostRule | undefined {
  const place = { label: `host ${JSON.stringify(url)}`, keys: ['host', url] }
  if (!isTable(table)) {
    document.problem({ label: 'host', keys: ['host'] }, url, `expected a table, got ${JSON.stringify(table)}`)
    return undefined
  }
  document.known(table, place, HOST_KEYS)
  return readRule(document, table, place, url)
}

/** @param key where the URL stands, if it is no table's name */
function readRule(document: TomlDocument, table: Table, place: Place, url: string, key?: string): HostRule {
  const capabilities = readCapabilities(document, table, place)
  const skipVerify = document.flag(table, place, 'skip_verify')
  const override = document.flag(table, place, 'override_path')
  const address = url === '' && key !== undefined ? undefined : addressOf(url, override)
  if (address === null) {
    const expected = 'expected "https://host[:port][/path]" or "http://host[:port][/path]"'
    document.problem(place, key ?? '', `${expected}, got ${JSON.stringify(url)}`)
  }
  const directory = posix.dirname(document.file)
  return {
    address: address ?? undefined,
    resolves: capabilities.includes('resolve'),
    pulls: capabilities.includes('pull'),
    skipVerify: table.skip_verify === undefined ? undefined : skipVerify,
    headers: readHeaders(document, table, place),
    tls: {
      ca: readPaths(document, table, place, 'ca').map(path => posix.resolve(directory, path)),
      client: readClient(document, table, place, directory),
    },
    connectTimeoutMs: readTimeout(document, table, place),
    origin: document.where(place, key),
  }
}

function readCapabilities(document: TomlDocument, table: Table, place: Place): readonly string[] {
  const given = document.strings(table, place, 'capabilities') ?? []
  const lower = given.map(name => name.toLowerCase())
  const unknown = given.find((_, index) => !CAPABILITIES.includes(lower[index]!))
  if (unknown !== undefined) {
    const expected = CAPABILITIES.map(name => `"${name}"`).join(', ')
    document.problem(place, 'capabilities', `${JSON.stringify(unknown)}: expected ${expected}`)
  }
  return lower.length === 0 ? CAPABILITIES : lower
}

/** null: no such address. Without a scheme it is https. */
function addressOf(text: string, override: boolean): HostRule['address'] | null {
  const url = URL.parse(text.includes('://') ? text : `https://${text}`)
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') return null
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return null
  // As it was written, with a default port: credentials and certificates are filed under it.
  const host = /^(?:https?:\/\/)?([^/]*)/i.exec(text)?.[1]?.toLowerCase() ?? ''
  if (!isDomain(host) || new URL(`${url.protocol}//${host}`).host !== url.host) return null
  const path = url.pathname.replace(/\/+$/, '')
  const root = override || path.endsWith('/v2') ? path : `${path}/v2`
  return { scheme: url.protocol, host, root }
}

function readHeaders(document: TomlDocument, table: Table, place: Place): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {}
  const below = {
    label: place.label === '' ? 'header' : `${place.label} header`,
    keys: [...place.keys, 'header'],
  }
  for (const [name, value] of Object.entries(document.table(table, place, 'header') ?? {})) {
    const values = Array.isArray(value) ? value : [value]
    // Values may be secrets: none is shown.
    if (!HEADER_NAME.test(name) || OWN_HEADERS.includes(name.toLowerCase())) {
      document.problem(below, name, 'is no header that can be set')
    } else if (values.every(item => typeof item === 'string' && HEADER_VALUE.test(item))) {
      headers[name.toLowerCase()] = values.join(', ')
    } else {
      document.problem(below, name, 'expected printable ASCII text, or a list of such texts')
    }
  }
  return headers
}

function readPaths(document: TomlDocument, table: Table, place: Place, key: string): readonly string[] {
  const value = table[key]
  if (value === undefined) return []
  const paths = Array.isArray(value) ? value : [value]
  if (paths.every(path => typeof path === 'string' && path !== '')) return paths as string[]
  document.problem(place, key, `expected a file or a list of files, got ${JSON.stringify(value)}`)
  return []
}

/** A file with certificate and key, several of them, or pairs of files. */
function readClient(
  document: TomlDocument,
  table: Table,
  place: Place,
  directory: string,
): EndpointTls['client'] {
  const value = table.client
  if (value === undefined) return []
  const items: readonly unknown[] = Array.isArray(value) ? value : [value]
  const pairs = items.map(item => (Array.isArray(item) && item.length === 2 ? item : [item, item]))
  if (pairs.some(pair => !pair.every(path => typeof path === 'string' && path !== ''))) {
    const expected = 'expected a file, a list of files, or a list of ["certificate", "key"]'
    document.problem(place, 'client', `${expected}, got ${JSON.stringify(value)}`)
    return []
  }
  return pairs.map(([cert, key]) => ({
    cert: posix.resolve(directory, cert as string),
    key: posix.resolve(directory, key as string),
  }))
}

function readTimeout(document: TomlDocument, table: Table, place: Place): number | undefined {
  if (table.dial_timeout === undefined) return undefined
  try {
    return duration.fromToml(table.dial_timeout) || undefined
  } catch (error) {
    document.problem(place, 'dial_timeout', messageOf(error))
    return undefined
  }
}
