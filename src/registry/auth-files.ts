import { BerthError, messageOf } from '../base/errors.ts'
import { WatchedFiles } from '../os/watched-files.ts'
import { type AuthFields, Credentials, serverOf } from './credentials.ts'
import type { Endpoint } from './endpoint.ts'
import { readText } from './read-text.ts'
import { DEFAULT_DOMAIN } from './reference.ts'
import { HELPER_NAME } from './registries-file.ts'

/** Where credentials may be: in a file, or with a helper that has to be asked. Neither says anything secret. */
export type CredentialSource = {
  /** `/root/.docker/config.json: auths["quay.io"]` */
  readonly origin: string
} & ({ readonly credentials: Credentials } | { readonly helper: string })

/** One auth.json: entries by `host[:port][/path]`, and the helper for everything else. */
type AuthFile = {
  readonly entries: ReadonlyMap<string, CredentialSource>
  readonly helpers: ReadonlyMap<string, CredentialSource>
  readonly store: CredentialSource | undefined
}

/**
 * containers-auth.json(5) and Docker's config.json, in the given order; the first file that knows a repository wins.
 * Within a file the longest path does, then the helper of the host, then the one for all hosts.
 */
export class AuthFiles {
  readonly #files: readonly WatchedFiles<AuthFile>[]

  constructor(files: readonly string[]) {
    this.#files = files.map(
      file =>
        new WatchedFiles(
          () => [file],
          () => readAuthFile(file, readText(file)),
        ),
    )
  }

  /**
   * What may have credentials, in the order in which it counts. Nothing comes after credentials; a helper may know
   * none.
   *
   * @throws BerthError unknown, naming the file that cannot be understood
   */
  find(endpoint: Pick<Endpoint, 'host' | 'repository'>): readonly CredentialSource[] {
    return this.#files.flatMap(file => sourcesIn(file.current(), endpoint))
  }
}

/**
 * What a single auth file says about an endpoint.
 *
 * @throws BerthError unknown, naming the file
 */
export function sourcesOf(
  file: string,
  source: string,
  endpoint: Pick<Endpoint, 'host' | 'repository'>,
): readonly CredentialSource[] {
  return sourcesIn(readAuthFile(file, source), endpoint)
}

function sourcesIn(
  { entries, helpers, store }: AuthFile,
  { host, repository }: Pick<Endpoint, 'host' | 'repository'>,
): readonly CredentialSource[] {
  const found: Array<CredentialSource | undefined> = []
  for (
    let name = `${host}/${repository}`;
    name !== '';
    name = name.slice(0, Math.max(0, name.lastIndexOf('/')))
  ) {
    found.push(helpers.get(name), entries.get(name))
  }
  found.push(store)
  return found.filter(source => source !== undefined)
}

function readAuthFile(file: string, source: string | undefined): AuthFile {
  const entries = new Map<string, CredentialSource>()
  const helpers = new Map<string, CredentialSource>()
  if (source === undefined || source.trim() === '') return { entries, helpers, store: undefined }
  const document = parsed(file, source)
  for (const [key, value] of byExactness(document.auths)) {
    const credentials = credentialsOf(file, key, recordOf(value))
    const origin = `${file}: auths[${JSON.stringify(key)}]`
    if (credentials !== undefined) entries.set(keyOf(key), { origin, credentials })
  }
  for (const [key, value] of byExactness(document.credHelpers)) {
    const origin = `${file}: credHelpers[${JSON.stringify(key)}]`
    helpers.set(keyOf(key), { origin, helper: helperName(origin, value) })
  }
  const { credsStore } = document
  const origin = `${file}: credsStore`
  const store =
    credsStore === undefined || credsStore === ''
      ? undefined
      : { origin, helper: helperName(origin, credsStore) }
  return { entries, helpers, store }
}

/** Exact keys last: they win over the legacy spellings that mean the same host. */
function byExactness(table: unknown): Array<[string, unknown]> {
  return Object.entries(recordOf(table)).sort(([a], [b]) => Number(keyOf(a) === a) - Number(keyOf(b) === b))
}

function helperName(origin: string, name: unknown): string {
  if (typeof name === 'string' && HELPER_NAME.test(name)) return name
  const expected = 'expected what follows "docker-credential-" in a program\'s name'
  throw new BerthError('unknown', `${origin}: ${expected}, got ${JSON.stringify(name)}`)
}

function credentialsOf(file: string, key: string, value: Record<string, unknown>): Credentials | undefined {
  const text = (name: string) => (typeof value[name] === 'string' ? value[name] : '')
  const fields: AuthFields = {
    username: text('username'),
    password: text('password'),
    auth: text('auth'),
    identityToken: text('identitytoken'),
    registryToken: text('registrytoken'),
    serverAddress: key,
  }
  try {
    return Credentials.from(fields, `auths[${JSON.stringify(key)}]`)
  } catch (error) {
    throw new BerthError('unknown', `${file}: ${messageOf(error)}`, error)
  }
}

/** `https://index.docker.io/v1/` is Docker's old key for Docker Hub; `quay.io/team` names a path. */
function keyOf(key: string): string {
  if (!key.includes('://') && serverOf(key) !== DEFAULT_DOMAIN) return key
  const path = key.includes('://') ? '' : key.slice(key.indexOf('/') < 0 ? key.length : key.indexOf('/'))
  return serverOf(key) + (path === '/v1/' ? '' : path)
}

function parsed(file: string, source: string): Record<string, unknown> {
  let document: unknown
  try {
    document = JSON.parse(source)
  } catch {
    // The parser's message quotes the text, which holds secrets.
    throw new BerthError('unknown', `${file}: not valid JSON`)
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new BerthError('unknown', `${file}: expected an object with "auths"`)
  }
  return document as Record<string, unknown>
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {}
}
