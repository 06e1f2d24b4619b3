import type { Credentials } from '../credentials.ts'
import { DEFAULT_DOMAIN } from '../reference.ts'
import type { Endpoint } from '../registries.ts'
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
  readonly schemes: Map<string, string>
}

/** One endpoint with the credentials of one pull. */
export class Session {
  readonly endpoint: Endpoint
  readonly #credentials: Credentials | undefined
  readonly #shared: Shared

  constructor(endpoint: Endpoint, credentials: Credentials | undefined, shared: Shared) {
    this.endpoint = endpoint
    this.#credentials = credentials
    this.#shared = shared
  }

  /**
   * GET below `/v2/<repository>/`, authorized as the registry asks. Answers other than those in `expected` are
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

  /** https; where the configuration allows it, http when nobody speaks TLS there. */
  async #inSomeScheme(attempt: (origin: string) => Promise<HttpResponse>): Promise<HttpResponse> {
    const { host, insecure } = this.endpoint
    const address = host === DEFAULT_DOMAIN ? DOCKER_HUB_ADDRESS : host
    if (!insecure) return attempt(`https://${address}`)
    const { schemes } = this.#shared
    const known = schemes.get(host)
    const failures: Failure[] = []
    for (const scheme of known === undefined ? ['https:', 'http:'] : [known]) {
      const { origin } = new URL(`${scheme}//${address}`)
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
    const { repository, insecure } = this.endpoint
    const audience = { origin, repository, credentials: this.#credentials, insecure }
    const ask = (authorization: string | undefined) =>
      send(connections, {
        purpose,
        url: new URL(`${origin}/v2/${repository}/${path}`),
        headers: { 'user-agent': userAgent, ...headers },
        authorization,
        insecure,
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
