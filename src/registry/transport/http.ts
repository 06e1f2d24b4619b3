import { type Dispatcher, request } from 'undici'
import { effect } from '../../base/effects.ts'
import { BerthError } from '../../base/errors.ts'
import { forbiddenAddress, hostOf } from './addresses.ts'
import type { Access, Connections } from './connections.ts'
import { Failure, type FailureKind, foreignText, publicUrl, transportFailure } from './failure.ts'
import { parseRetryAfter } from './retry.ts'

export type HttpRequest = {
  /** For the effect hook: `get-manifest`, `get-blob`, `get-token`. */
  readonly purpose: string
  readonly url: URL
  readonly method?: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  /** Sent to this origin only. */
  readonly authorization?: string | undefined
  /** Sent to this origin only: hosts.toml may hold secrets in them. */
  readonly ownHeaders?: Readonly<Record<string, string>>
  readonly body?: string
  readonly access: Access
  readonly signal: AbortSignal
}

type Body = Dispatcher.ResponseData['body']

/** A registry redirects to object storage once, perhaps twice. */
const MAX_REDIRECTS = 10
const REDIRECTS = new Set([301, 302, 303, 307, 308])

/** Of an answer that is only looked at to explain a failure. */
const MAX_ERROR_BODY = 16 * 1024

export class HttpResponse {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  /** Where it came from, after redirects. */
  readonly url: URL
  /** It came from the origin that was asked, so it may speak about authorization. */
  readonly direct: boolean
  readonly #body: Body
  readonly #signal: AbortSignal

  constructor(data: Dispatcher.ResponseData, url: URL, direct: boolean, signal: AbortSignal) {
    this.status = data.statusCode
    this.headers = new Map(
      Object.entries(data.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value.join(', ') : (value ?? ''),
      ]),
    )
    this.url = url
    this.direct = direct
    this.#body = data.body
    this.#signal = signal
  }

  /** @throws Failure when it breaks; leaving the loop closes the connection */
  async *chunks(): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of this.#body) yield chunk as Buffer
    } catch (error) {
      throw this.#broken(error)
    }
  }

  /** @throws Failure `content` above `maxBytes`: the limit holds while reading */
  async read(maxBytes: number): Promise<Buffer> {
    const chunks: Buffer[] = []
    let size = 0
    for await (const chunk of this.chunks()) {
      size += chunk.length
      if (size > maxBytes)
        throw new Failure('content', `${publicUrl(this.url)}: larger than ${maxBytes} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks, size)
  }

  /** Lets the connection go without reading on. */
  async discard(): Promise<void> {
    try {
      await this.#body.dump({ limit: MAX_ERROR_BODY, signal: this.#signal })
    } catch (error) {
      throw this.#broken(error)
    }
  }

  /** What this answer means for a request that it doesn't fulfil. */
  async failure(): Promise<Failure> {
    let text = ''
    try {
      text = explained((await this.read(MAX_ERROR_BODY)).toString())
    } catch (error) {
      // The status says enough.
      if (!(error instanceof Failure)) throw error
    }
    const message = `${publicUrl(this.url)}: ${this.status}${text === '' ? '' : ` ${text}`}`
    return new Failure(kindOf(this.status), message, {
      retryAfterMs: parseRetryAfter(this.headers.get('retry-after')),
    })
  }

  #broken(error: unknown): Error {
    return aborted(this.#signal) ?? transportFailure(this.url, error)
  }
}

/**
 * One request with its redirects, followed here and not by the client library so that it is plain which headers go
 * where: authorization, headers of hosts.toml and client certificates stay with the scheme, host and port that they
 * were meant for.
 *
 * @throws Failure, or BerthError cancelled
 */
export async function send(connections: Connections, original: HttpRequest): Promise<HttpResponse> {
  let ask = original
  let direct = true
  for (let hop = 0; ; hop++) {
    const { url } = ask
    const response = await sendOnce(connections, ask, direct)
    if (!REDIRECTS.has(response.status)) return response
    await response.discard()
    if (hop === MAX_REDIRECTS)
      throw new Failure('refused', `${publicUrl(original.url)}: more than ${MAX_REDIRECTS} redirects`)
    const next = target(url, response.headers.get('location'))
    if (original.method === 'POST') {
      throw new Failure(
        'refused',
        `${publicUrl(url)}: redirected to ${publicUrl(next)}; a secret is not sent on`,
      )
    }
    if (next.origin !== url.origin) direct = false
    ask = next.origin === url.origin ? { ...ask, url: next } : elsewhere(ask, next, original.url)
  }
}

/** The request as another origin gets it: without secrets, and to no address that is none of a registry's business. */
function elsewhere(ask: HttpRequest, url: URL, original: URL): HttpRequest {
  const { authorization: _authorization, ownHeaders: _ownHeaders, ...rest } = ask
  return { ...rest, url, access: foreignAccess(ask.access, url, original) }
}

/** How a host is reached that `origin` named, in a redirect or as its token server. */
export function foreignAccess(access: Access, url: URL, origin: URL): Access {
  const guard = url.hostname === origin.hostname ? access.guard : { from: hostOf(origin) }
  return { ...access, tls: { ca: access.tls.ca, client: [] }, guard }
}

async function sendOnce(connections: Connections, ask: HttpRequest, direct: boolean): Promise<HttpResponse> {
  const { guard } = ask.access
  const why = guard === undefined ? undefined : forbiddenAddress(hostOf(ask.url), guard.from)
  if (why !== undefined) throw new Failure('refused', `${publicUrl(ask.url)}: ${why}`)
  const own = ask.authorization === undefined ? {} : { authorization: ask.authorization }
  try {
    const data = await effect('registry', ask.purpose, publicUrl(ask.url), () =>
      request(ask.url, {
        method: ask.method ?? 'GET',
        headers: { ...ask.headers, ...ask.ownHeaders, ...own },
        body: ask.body ?? null,
        signal: ask.signal,
        dispatcher: connections.for(ask.url, ask.access),
      }),
    )
    return new HttpResponse(data, ask.url, direct, ask.signal)
  } catch (error) {
    if (error instanceof BerthError) throw error
    throw aborted(ask.signal) ?? transportFailure(ask.url, error)
  }
}

function target(from: URL, location: string | undefined): URL {
  const url = location === undefined ? null : URL.parse(location, from.href)
  const refuse = (why: string) => new Failure('refused', `${publicUrl(from)}: redirected ${why}`)
  if (url === null) throw refuse('to nowhere: no usable Location')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse(`to ${foreignText(url.protocol)}`)
  if (from.protocol === 'https:' && url.protocol === 'http:')
    throw refuse(`from https to http (${publicUrl(url)})`)
  // A user in a URL would become an authorization that nobody configured.
  url.username = ''
  url.password = ''
  return url
}

/** What an operation that its caller gave up ends with. */
export function aborted(signal: AbortSignal): BerthError | undefined {
  if (!signal.aborted) return undefined
  if (signal.reason instanceof BerthError) return signal.reason
  return new BerthError('cancelled', 'the request to the registry was cancelled', signal.reason)
}

function kindOf(status: number): FailureKind {
  if (status === 404) return 'not-found'
  if (status === 401 || status === 403) return 'denied'
  return status === 408 || status === 429 || status >= 500 ? 'unavailable' : 'refused'
}

/** The errors of the distribution specification's "Error Codes"; nothing for other bodies, which are pages. */
function explained(body: string): string {
  try {
    const { errors } = JSON.parse(body) as { errors?: ReadonlyArray<{ code?: unknown; message?: unknown }> }
    const lines = (errors ?? []).slice(0, 3).map(({ code, message }) => `${code ?? ''}: ${message ?? ''}`)
    return foreignText(lines.join(', '))
  } catch {
    return ''
  }
}
