import { createHmac, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { invalid } from '../base/errors.ts'
import { DEFAULT_DOMAIN } from './reference.ts'

/** CRI AuthConfig, and an entry of auth.json: '' or undefined is "not given". */
export type AuthFields = {
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** base64 of `username:password` */
  readonly auth?: string | undefined
  readonly serverAddress?: string | undefined
  /** A refresh token, exchanged at the registry's token server. */
  readonly identityToken?: string | undefined
  /** A bearer token that is sent to the registry as it is. */
  readonly registryToken?: string | undefined
}

type Secret =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string }
  | { readonly kind: 'registry-token'; readonly token: string }

/** Fingerprints are compared within one process only; with this key they tell nothing to anybody else. */
const FINGERPRINT_KEY = randomBytes(32)

// RFC 9110 field values, less what isn't ASCII: a secret must not be able to add a header.
const HEADER_SAFE = /^[\x21-\x7e]+$/

/** A secret for a registry. It prints as `[credentials]` wherever it ends up. */
export class Credentials {
  readonly #secret: Secret
  readonly #server: string

  /**
   * @returns undefined when the fields hold no secret (an anonymous pull)
   * @throws BerthError invalid naming `field`, never quoting a secret
   */
  static from(fields: AuthFields, field = 'auth'): Credentials | undefined {
    const secret = secretOf(fields, field)
    return secret && new Credentials(secret, serverOf(fields.serverAddress ?? ''))
  }

  private constructor(secret: Secret, server: string) {
    this.#secret = secret
    this.#server = server
  }

  /** `host[:port]` these are for; '' when they came without one and so belong to the registry of the image's name. */
  get server(): string {
    return this.#server
  }

  /** The value of an Authorization header with user and password. */
  get basic(): string | undefined {
    const secret = this.#secret
    if (secret.kind !== 'password') return undefined
    return `Basic ${Buffer.from(`${secret.username}:${secret.password}`).toString('base64')}`
  }

  get identityToken(): string | undefined {
    return this.#secret.kind === 'identity-token' ? this.#secret.token : undefined
  }

  get registryToken(): string | undefined {
    return this.#secret.kind === 'registry-token' ? this.#secret.token : undefined
  }

  /** What kind of secret this is, for people. */
  get kind(): string {
    const kinds = {
      password: 'user and password',
      'identity-token': 'identity token',
      'registry-token': 'registry token',
    }
    return kinds[this.#secret.kind]
  }

  /** Equal for equal secrets of one process. */
  get fingerprint(): string {
    return createHmac('sha256', FINGERPRINT_KEY).update(JSON.stringify(this.#secret)).digest('hex')
  }

  toString(): string {
    return '[credentials]'
  }

  toJSON(): string {
    return '[credentials]'
  }

  [inspect.custom](): string {
    return '[credentials]'
  }
}

function secretOf(fields: AuthFields, field: string): Secret | undefined {
  const { username, password, auth, identityToken, registryToken } = fields
  if (registryToken)
    return { kind: 'registry-token', token: headerSafe(registryToken, `${field}.registry_token`) }
  if (identityToken) return { kind: 'identity-token', token: identityToken }
  if (username || password) return { kind: 'password', username: username ?? '', password: password ?? '' }
  return auth ? decoded(auth, `${field}.auth`) : undefined
}

function headerSafe(token: string, field: string): string {
  if (!HEADER_SAFE.test(token)) throw invalid(field, 'expected printable ASCII without spaces')
  return token
}

function decoded(auth: string, field: string): Secret {
  // Some writers pad the decoded text with NUL bytes.
  const text = Buffer.from(auth, 'base64').toString().replace(/\0+$/, '')
  const colon = text.indexOf(':')
  if (colon < 0) throw invalid(field, 'expected base64 of "username:password"')
  return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) }
}

const DOCKER_HUB_HOSTS = new Set(['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com'])

/** `https://index.docker.io/v1/` → `docker.io`, `https://quay.io` → `quay.io`: the host that a server address names. */
export function serverOf(address: string): string {
  const start = address.indexOf('://')
  const rest = start < 0 ? address : address.slice(start + 3)
  const [host = ''] = rest.split('/')
  return DOCKER_HUB_HOSTS.has(host) ? DEFAULT_DOMAIN : host
}
