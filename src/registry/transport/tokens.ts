import { SingleFlight } from '../../base/single-flight.ts'
import { parseStrictJson } from '../../base/strict-json.ts'
import type { Log } from '../../observe/log.ts'
import type { Credentials } from '../credentials.ts'
import type { Challenge } from './challenge.ts'
import type { Access, Connections } from './connections.ts'
import { Failure, publicUrl } from './failure.ts'
import { foreignAccess, send } from './http.ts'

/** Tokens are a few kilobytes, whatever they carry. */
const MAX_TOKEN_ANSWER = 256 * 1024
/** "If omitted, this defaults to 60 seconds" (Docker token specification). */
const DEFAULT_LIFETIME_S = 60
const MAX_LIFETIME_S = 24 * 3600
/** Renewed this long before the end, for clocks that differ and requests that queue. */
const MARGIN_MS = 5000
/** One per repository and credential; a node has a few hundred images. */
const MAX_AUTHORIZATIONS = 2000

/** Who asks for what: an authorization is never used for another. */
export type Audience = {
  /** `https://host[:port]` of the registry. */
  readonly origin: string
  readonly repository: string
  readonly credentials: Credentials | undefined
  /** How the registry is reached; if insecurely, http realms are allowed. */
  readonly access: Access
}

type Authorization = { readonly header: string; readonly until: number }

/** Authorization headers, as the registries' challenges asked for them (RFC 9110, Docker token specification). */
export class Tokens {
  readonly #connections: Connections
  readonly #userAgent: string
  readonly #log: Log | undefined
  readonly #known = new Map<string, Authorization>()
  readonly #flights = new SingleFlight<Authorization>('last-waiter')

  constructor(connections: Connections, userAgent: string, log: Log | undefined) {
    this.#connections = connections
    this.#userAgent = userAgent
    this.#log = log
  }

  /** What worked before for this audience and is still valid. */
  current(audience: Audience): string | undefined {
    const registryToken = audience.credentials?.registryToken
    if (registryToken !== undefined) return `Bearer ${registryToken}`
    const known = this.#known.get(keyOf(audience))
    return known !== undefined && known.until > Date.now() ? known.header : undefined
  }

  /**
   * Answers a 401 to a request that carried `refused`.
   *
   * @returns undefined if no challenge can be answered with what there is
   * @throws Failure of the token server
   */
  async renew(
    audience: Audience,
    refused: string | undefined,
    challenges: readonly Challenge[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    if (audience.credentials?.registryToken !== undefined) return undefined
    const key = keyOf(audience)
    const current = this.current(audience)
    // Another request of the same pull was faster.
    if (current !== undefined && current !== refused) return current
    this.#known.delete(key)
    const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm'))
    const basic = audience.credentials?.basic
    if (bearer !== undefined) {
      const fetched = await this.#flights.run(key, signal, shared => this.#fetch(audience, bearer, shared))
      this.#remember(key, fetched)
      return fetched.header
    }
    // A second refusal of the same user and password would be no news.
    if (basic === undefined || basic === refused || !challenges.some(({ scheme }) => scheme === 'basic'))
      return undefined
    this.#remember(key, { header: basic, until: Date.now() + MAX_LIFETIME_S * 1000 })
    return basic
  }

  #remember(key: string, authorization: Authorization): void {
    this.#known.delete(key)
    this.#known.set(key, authorization)
    const [oldest] = this.#known.keys()
    if (this.#known.size > MAX_AUTHORIZATIONS && oldest !== undefined) this.#known.delete(oldest)
  }

  async #fetch(audience: Audience, { parameters }: Challenge, signal: AbortSignal): Promise<Authorization> {
    const realm = this.#realm(audience, parameters.get('realm') ?? '')
    const { credentials } = audience
    this.#log?.debug({ registry: audience.origin, tokenServer: realm.host }, 'asking for a token')
    const query = new URLSearchParams()
    const service = parameters.get('service')
    if (service !== undefined) query.set('service', service)
    query.set('scope', parameters.get('scope') ?? `repository:${audience.repository}:pull`)
    const common = {
      purpose: 'get-token',
      headers: { 'user-agent': this.#userAgent, accept: 'application/json' },
      access: realmAccess(audience, realm),
      signal,
    }
    const started = Date.now()
    if (credentials?.identityToken !== undefined) {
      query.set('grant_type', 'refresh_token')
      query.set('client_id', 'berth')
      query.set('refresh_token', credentials.identityToken)
      const headers = { ...common.headers, 'content-type': 'application/x-www-form-urlencoded' }
      return this.#answer(
        realm,
        started,
        await send(this.#connections, {
          ...common,
          url: realm,
          method: 'POST',
          headers,
          body: query.toString(),
        }),
      )
    }
    const url = new URL(realm)
    for (const [name, value] of query) url.searchParams.append(name, value)
    const authorization = credentials?.basic
    return this.#answer(realm, started, await send(this.#connections, { ...common, url, authorization }))
  }

  #realm(audience: Audience, text: string): URL {
    const realm = URL.parse(text)
    const allowed = audience.access.insecure ? ['https:', 'http:'] : ['https:']
    if (
      realm === null ||
      !allowed.includes(realm.protocol) ||
      realm.username !== '' ||
      realm.password !== ''
    ) {
      const shown = realm === null ? 'no URL' : publicUrl(realm)
      throw new Failure(
        'refused',
        `${audience.origin}: names ${shown} as its token server; expected an https URL`,
      )
    }
    return realm
  }

  async #answer(
    realm: URL,
    started: number,
    response: Awaited<ReturnType<typeof send>>,
  ): Promise<Authorization> {
    const where = `token server ${publicUrl(realm)}`
    if (response.status !== 200) {
      const failure = await response.failure()
      const kind = failure.kind === 'not-found' ? 'refused' : failure.kind
      throw new Failure(kind, `token server ${failure.message}`, {
        cause: failure,
        retryAfterMs: failure.retryAfterMs,
      })
    }
    const { token, lifetime } = parseAnswer(where, await response.read(MAX_TOKEN_ANSWER))
    return { header: `Bearer ${token}`, until: started + lifetime * 1000 - MARGIN_MS }
  }
}

/** The permission to skip verification was given for the registry, not for whatever host it names. */
function realmAccess({ origin, access }: Audience, realm: URL): Access {
  const registry = new URL(origin)
  if (realm.origin === registry.origin) return access
  const insecure = access.insecure && realm.hostname === registry.hostname
  return { ...foreignAccess(access, realm, registry), insecure }
}

function keyOf({ origin, repository, credentials }: Audience): string {
  return [origin, repository, credentials?.fingerprint ?? ''].join(' ')
}

function parseAnswer(where: string, body: Buffer): { token: string; lifetime: number } {
  let answer: Readonly<Record<string, unknown>>
  try {
    answer = Object(parseStrictJson(body))
  } catch (error) {
    // The parser's message may quote the token.
    throw new Failure('content', `${where}: the answer is not valid JSON`, {
      cause: error instanceof SyntaxError ? undefined : error,
    })
  }
  const token = answer.token || answer.access_token
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    throw new Failure('content', `${where}: the answer holds no usable "token"`)
  }
  const seconds = answer.expires_in
  const lifetime =
    typeof seconds === 'number' && seconds > 0 ? Math.min(seconds, MAX_LIFETIME_S) : DEFAULT_LIFETIME_S
  return { token, lifetime }
}
