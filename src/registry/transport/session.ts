import type { Credentials } from '../credentials.ts'
import type { Endpoint, Scheme } from '../endpoint.ts'
import { DEFAULT_DOMAIN } from '../reference.ts'
import { parseChallenges } from './challenge.ts'
import type { Connections } from './connections.ts'
import { Failure } from './failure.ts'
import { type HttpResponse, send } from './http.ts'
import type { Tokens } from './tokens.ts'

/** Docker Hub's name is not the address of its registry. */
const DOCKER_HUB_ADDRESS = 'registry-1.docker.io'

/** Insecure hosts by how they were reached; more than any node has. */
const MAX_SCHEMES = 1000

/** What the sessions of one client share. */
export type Shared = {
  readonly connections: Connections
  readonly tokens: Tokens
  readonly userAgent: string
  /** `http:` or `https:` by insecure host, once it answered. */
  readonly schemes: Map<string, Scheme>
}

/** The repository's address at an endpoint, below which everything is asked. */
export function endpointUrl({ host, root, repository }: Endpoint, scheme: Scheme): URL {
  const address = host === DEFAULT_DOMAIN ? DOCKER_HUB_ADDRESS : host
  return new URL(`${scheme}//${address}${root}/${repository}`)
}

export type FindCredentials = (signal: AbortSignal) => Promise<Credentials | undefined>

/** One endpoint with the credentials of one pull. */
export class Session {
  readonly endpoint: Endpoint
  readonly #find: FindCredentials
  readonly #shared: Shared
  #credentials: { readonly found: Credentials | undefined } | undefined

  /** @param find asked when the endpoint is, since a helper program may have to be run */
  constructor(endpoint: Endpoint, find: FindCredentials, shared: Shared) {
    this.endpoint = endpoint
    this.#find = find
    this.#shared = shared
  }

  /**
   * GET below `<root>/<repository>/`, authorized as the registry asks. Answers other than those in `expected` are
   * failures.
   *
   * @throws Failure, or BerthError cancelled
   */
  async get(
    purpose: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    expected: readonly number[],
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const response = await this.#inSomeScheme(origin =>
      this.#authorized(origin, purpose, path, headers, signal),
    )
    if (expected.includes(response.status)) return response
    throw await response.failure()
  }

  /** The endpoint's scheme; where several are allowed, http when nobody speaks TLS there. */
  async #inSomeScheme(attempt: (origin: string) => Promise<HttpResponse>): Promise<HttpResponse> {
    const { host, schemes: allowed } = this.endpoint
    const [first] = allowed
    if (allowed.length === 1) return attempt(endpointUrl(this.endpoint, first!).origin)
    const { schemes } = this.#shared
    const known = schemes.get(host)
    const failures: Failure[] = []
    for (const scheme of known === undefined ? allowed : [known]) {
      const { origin } = endpointUrl(this.endpoint, scheme)
      try {
        const response = await attempt(origin)
        if (schemes.size >= MAX_SCHEMES) schemes.clear()
        schemes.set(host, scheme)
        return response
      } catch (error) {
        if (!(error instanceof Failure) || error.unreached !== origin) throw error
        failures.push(error)
      }
    }
    // Perhaps it comes back speaking the other one.
    schemes.delete(host)
    const message = failures.map(failure => failure.message).join('; ')
    throw new Failure('unavailable', message, { cause: failures.at(-1) })
  }

  async #authorized(
    origin: string,
    purpose: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { connections, tokens, userAgent } = this.#shared
    const {
      repository,
      root,
      namespace,
      headers: ownHeaders,
      insecure,
      tls,
      connectTimeoutMs,
    } = this.endpoint
    this.#credentials ??= { found: await this.#find(signal) }
    const access = { insecure, tls, connectTimeoutMs, guard: undefined }
    const audience = { origin, repository, credentials: this.#credentials.found, access }
    const url = new URL(`${origin}${root}/${repository}/${path}`)
    if (namespace !== undefined) url.searchParams.set('ns', namespace)
    const ask = (authorization: string | undefined) =>
      send(connections, {
        purpose,
        url,
        headers: { 'user-agent': userAgent, ...headers },
        ownHeaders,
        authorization,
        access,
        signal,
      })
    const first = tokens.current(audience)
    const response = await ask(first)
    // Only the registry itself is told who asks, not where it redirects to.
    if (response.status !== 401 || !response.direct) return response
    const challenges = parseChallenges(response.headers.get('www-authenticate') ?? '')
    const refusal = await response.failure()
    const renewed = await tokens.renew(audience, first, challenges, signal)
    if (renewed === undefined) throw refusal
    return ask(renewed)
  }
}
