import { BerthError, messageOf } from '../base/errors.ts'
import type { Log } from '../observe/log.ts'
import { type AuthFields, Credentials, serverOf } from './credentials.ts'
import { readText } from './read-text.ts'
import type { Endpoint } from './registries.ts'
import { WatchedFiles } from './watched-files.ts'

/** Entries of one auth.json by `host[:port][/path]`. */
type AuthFile = ReadonlyMap<string, Credentials>

/**
 * containers-auth.json(5) and Docker's config.json, in the given order; the first file that knows a repository wins.
 * Within a file the longest path does.
 */
export class AuthFiles {
  readonly #files: readonly WatchedFiles<AuthFile>[]

  constructor(files: readonly string[], log: Log | undefined) {
    this.#files = files.map(
      file =>
        new WatchedFiles(
          () => [file],
          () => readAuthFile(file, log),
        ),
    )
  }

  /** @throws BerthError unknown, naming the file that cannot be understood */
  find({ host, repository }: Endpoint): Credentials | undefined {
    for (const file of this.#files) {
      const entries = file.current()
      for (
        let name = `${host}/${repository}`;
        name !== '';
        name = name.slice(0, Math.max(0, name.lastIndexOf('/')))
      ) {
        const found = entries.get(name)
        if (found !== undefined) return found
      }
    }
    return undefined
  }
}

function readAuthFile(file: string, log: Log | undefined): AuthFile {
  const entries = new Map<string, Credentials>()
  const source = readText(file)
  if (source === undefined || source.trim() === '') return entries
  const document = parsed(file, source)
  const helpers = [document.credsStore, ...Object.values(recordOf(document.credHelpers))].filter(
    name => typeof name === 'string',
  )
  if (helpers.length > 0) {
    log?.warn(
      { file, helpers: [...new Set(helpers)] },
      'credential helper programs are not supported; only "auths" is read',
    )
  }
  // Exact keys last: they win over the legacy spellings that mean the same host.
  const auths = Object.entries(recordOf(document.auths)).sort(
    ([a], [b]) => Number(keyOf(a) === a) - Number(keyOf(b) === b),
  )
  for (const [key, value] of auths) {
    const credentials = credentialsOf(file, key, recordOf(value))
    if (credentials !== undefined) entries.set(keyOf(key), credentials)
  }
  return entries
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
  if (!key.includes('://') && serverOf(key) !== 'docker.io') return key
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
