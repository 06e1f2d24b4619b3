import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { TestImage } from './images.ts'
import type { Blob } from './layers.ts'

export type RegistryOptions = {
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Default: a free one. */
  readonly port?: number
  /** PEM; makes it an https server. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa?: string }
  readonly auth?: RegistryAuth
}

/** What every request but those for tokens must carry. */
export type RegistryAuth = {
  readonly kind: 'basic' | 'bearer'
  readonly username?: string
  readonly password?: string
  /** Accepted by the token server in exchange for a token. */
  readonly identityToken?: string
  /** Accepted as it is, without the token server. */
  readonly registryToken?: string
  /** The token server gives tokens to the anonymous as well. */
  readonly anonymous?: boolean
  /** Default: `/token` of this server. */
  readonly realm?: string
  readonly expiresIn?: number
}

/** One thing that goes wrong. Without an effect named, a matching request is served as usual. */
export type Fault = {
  /** Against `GET /v2/repo/blobs/sha256:…`. */
  readonly match: RegExp
  /** How many matching requests it hits; default: all. */
  readonly times?: number
  /** Let that many matching requests pass first. */
  readonly after?: number
  readonly delayMs?: number
  /** Answer with this status and no content. */
  readonly status?: number
  readonly retryAfter?: string
  readonly body?: string
  /** Break the connection after this many bytes of the body; 0 is before the headers. */
  readonly cutAt?: number
  /** Send this many bytes of the body, then nothing, with the connection open. */
  readonly stallAt?: number
  /** Send the body in pieces of so many bytes, one per 10 ms. */
  readonly trickle?: number
  /** Flip the last byte of the body. */
  readonly corrupt?: boolean
  /** Bytes appended to the body, and counted by Content-Length. */
  readonly extraBytes?: number
  /** No Content-Length. */
  readonly chunked?: boolean
  /** Answer a Range request with 200 and everything. */
  readonly ignoreRange?: boolean
  /** Content-Range that doesn't say what was asked for. */
  readonly wrongRange?: boolean
  /** 307 to this URL, or to what the function makes of the path. */
  readonly redirectTo?: string | ((path: string) => string)
  /** Headers set last. */
  readonly headers?: Readonly<Record<string, string>>
}

export type LoggedRequest = {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** undefined while it is unanswered, or if the connection was cut. */
  status: number | undefined
  /** Bytes of the body that were handed to the connection. */
  sent: number
}

type Content = { readonly mediaType: string; readonly blob: Blob }
type Repository = { readonly manifests: Map<string, Content>; readonly blobs: Map<string, Blob> }

/** An OCI distribution registry in this process, read only over the wire, with faults to order. */
export class TestRegistry {
  readonly requests: LoggedRequest[] = []
  /** `host:port` */
  readonly address: string
  readonly url: string
  auth: RegistryAuth | undefined
  readonly #server: Server
  readonly #repositories = new Map<string, Repository>()
  readonly #tokens = new Set<string>()
  #faults: Array<{ fault: Fault; seen: number }> = []

  static async start(options: RegistryOptions = {}): Promise<TestRegistry> {
    const { tls } = options
    const server =
      tls === undefined
        ? createServer()
        : createTlsServer({
            cert: tls.cert,
            key: tls.key,
            ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa, requestCert: true }),
          })
    const host = options.host ?? '127.0.0.1'
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(options.port ?? 0, host, resolve)
    })
    return new TestRegistry(server, `${host}:${(server.address() as AddressInfo).port}`, options)
  }

  private constructor(server: Server, address: string, options: RegistryOptions) {
    this.#server = server
    this.address = address
    this.url = `${options.tls === undefined ? 'http' : 'https'}://${address}`
    this.auth = options.auth
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#serve(request, response).catch(error => response.destroy(error))
    })
  }

  /** Stores all that the image consists of; without a tag it is reachable by digest only. */
  push(image: TestImage, repository: string, tag?: string): string {
    const { manifests, blobs } = this.#repository(repository)
    for (const child of image.children) this.push(child, repository)
    for (const blob of [image.config, ...image.layers.map(layer => layer.blob)]) {
      if (blob !== undefined) blobs.set(blob.digest, blob)
    }
    const blob = { digest: image.digest, size: image.manifest.length, data: image.manifest }
    manifests.set(image.digest, { mediaType: image.mediaType, blob })
    if (tag !== undefined) manifests.set(tag, { mediaType: image.mediaType, blob })
    return image.digest
  }

  addBlob(repository: string, blob: Blob): void {
    this.#repository(repository).blobs.set(blob.digest, blob)
  }

  removeBlob(repository: string, digest: string): void {
    this.#repository(repository).blobs.delete(digest)
  }

  /** Replaces all faults; the first that matches a request and isn't used up is applied. */
  faults(...faults: Fault[]): void {
    this.#faults = faults.map(fault => ({ fault, seen: 0 }))
  }

  /** Requests whose `METHOD path` matches. */
  requestsTo(pattern: RegExp): LoggedRequest[] {
    return this.requests.filter(request => pattern.test(`${request.method} ${request.path}`))
  }

  /** Connections that are in the middle of a request; those that wait for the next one don't count. */
  async busyConnections(): Promise<number> {
    const count = promisify(this.#server.getConnections.bind(this.#server))
    this.#server.closeIdleConnections()
    // Closing takes a turn of the event loop.
    await sleep(10)
    return count()
  }

  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  #repository(name: string): Repository {
    let repository = this.#repositories.get(name)
    if (repository === undefined) {
      repository = { manifests: new Map(), blobs: new Map() }
      this.#repositories.set(name, repository)
    }
    return repository
  }

  #faultFor(line: string): Fault | undefined {
    for (const entry of this.#faults) {
      if (!entry.fault.match.test(line)) continue
      const index = entry.seen++ - (entry.fault.after ?? 0)
      if (index >= 0 && index < (entry.fault.times ?? Number.POSITIVE_INFINITY)) return entry.fault
    }
    return undefined
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url)
    const logged: LoggedRequest = {
      method: request.method ?? 'GET',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: (await request.toArray()).map(String).join(''),
      status: undefined,
      sent: 0,
    }
    this.requests.push(logged)
    response.once('finish', () => {
      logged.status = response.statusCode
    })
    const fault = this.#faultFor(`${logged.method} ${logged.path}`) ?? { match: /./ }
    for (const [name, value] of Object.entries(fault.headers ?? {})) response.setHeader(name, value)
    if (fault.delayMs !== undefined) await sleep(fault.delayMs)
    if (fault.retryAfter !== undefined) response.setHeader('retry-after', fault.retryAfter)
    if (fault.status !== undefined) return end(response, fault.status, fault.body ?? '')
    if (fault.redirectTo !== undefined) {
      const to = typeof fault.redirectTo === 'string' ? fault.redirectTo : fault.redirectTo(logged.path)
      return end(response, 307, '', { location: to })
    }
    if (url.pathname === '/token') return this.#token(logged, response)
    if (!this.#authorized(logged)) return this.#challenge(logged, response)
    return this.#content(logged, response, fault)
  }

  #content(request: LoggedRequest, response: ServerResponse, fault: Fault): Promise<void> | void {
    if (request.path === '/v2/') return end(response, 200, '{}')
    const [, name, kind, reference] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(request.path) ?? []
    const repository = this.#repositories.get(name ?? '')
    if (repository === undefined || reference === undefined)
      return fail(response, 404, 'NAME_UNKNOWN', 'repository name not known to registry')
    if (kind === 'manifests') {
      const manifest = repository.manifests.get(reference)
      if (manifest === undefined) return fail(response, 404, 'MANIFEST_UNKNOWN', 'manifest unknown')
      return sendBlob(request, response, manifest, fault)
    }
    const blob = repository.blobs.get(reference)
    if (blob === undefined) return fail(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry')
    return sendBlob(request, response, { mediaType: 'application/octet-stream', blob }, fault)
  }

  #authorized({ headers, path }: LoggedRequest): boolean {
    if (this.auth === undefined) return true
    const [scheme, value = ''] = (headers.authorization ?? '').split(' ')
    if (this.auth.kind === 'basic') return scheme === 'Basic' && this.#knows(value)
    const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? ''
    return (
      scheme === 'Bearer' && (this.#tokens.has(`${repository} ${value}`) || value === this.auth.registryToken)
    )
  }

  #knows(basic: string): boolean {
    const { username, password } = this.auth ?? {}
    return username !== undefined && Buffer.from(basic, 'base64').toString() === `${username}:${password}`
  }

  #challenge({ path }: LoggedRequest, response: ServerResponse): void {
    const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? ''
    const challenge =
      this.auth?.kind === 'basic'
        ? 'Basic realm="test"'
        : `Bearer realm="${this.auth?.realm ?? `${this.url}/token`}",service="test",scope="repository:${repository}:pull"`
    response.setHeader('www-authenticate', challenge)
    fail(response, 401, 'UNAUTHORIZED', 'authentication required')
  }

  /** The token server of the Docker token specification: GET with Basic, or POST with a refresh token. */
  #token(request: LoggedRequest, response: ServerResponse): void {
    const { auth } = this
    const form = request.method === 'POST' ? new URLSearchParams(request.body) : request.query
    const [scheme, value = ''] = (request.headers.authorization ?? '').split(' ')
    const allowed =
      request.method === 'POST'
        ? form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === auth?.identityToken
        : scheme === 'Basic'
          ? this.#knows(value)
          : auth?.anonymous === true
    if (!allowed) {
      fail(response, 401, 'UNAUTHORIZED', 'incorrect username or password')
      return
    }
    const token = randomUUID()
    this.#tokens.add(`${form.get('scope')?.split(':')[1] ?? ''} ${token}`)
    end(response, 200, JSON.stringify({ token, expires_in: auth?.expiresIn ?? 300 }))
  }

  /** Makes all tokens given out so far invalid. */
  revokeTokens(): void {
    this.#tokens.clear()
  }
}

function end(
  response: ServerResponse,
  status: number,
  body: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, headers).end(body)
}

function fail(response: ServerResponse, status: number, code: string, message: string): void {
  end(response, status, JSON.stringify({ errors: [{ code, message }] }), {
    'content-type': 'application/json',
  })
}

async function sendBlob(
  request: LoggedRequest,
  response: ServerResponse,
  content: Content,
  fault: Fault,
): Promise<void> {
  const { blob, mediaType } = content
  const size = blob.size + (fault.extraBytes ?? 0)
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
  const ranged = from !== undefined && fault.ignoreRange !== true
  const start = ranged ? Number(from) : 0
  const stop = ranged && to ? Math.min(Number(to) + 1, size) : size
  if (fault.cutAt === 0) {
    response.destroy()
    return
  }
  if (start >= size && ranged) return end(response, 416, '', { 'content-range': `bytes */${size}` })
  const headers: Record<string, string> = {
    'content-type': mediaType,
    'content-length': String(stop - start),
    'docker-content-digest': blob.digest,
    etag: `"${createHash('sha256').update(blob.digest).digest('hex').slice(0, 16)}"`,
  }
  if (ranged)
    headers['content-range'] = `bytes ${fault.wrongRange === true ? start + 1 : start}-${stop - 1}/${size}`
  if (fault.chunked === true) delete headers['content-length']
  for (const name of Object.keys(fault.headers ?? {})) delete headers[name.toLowerCase()]
  response.writeHead(ranged ? 206 : 200, headers).flushHeaders()
  if (request.method === 'HEAD') {
    response.end()
    return
  }
  let sent = 0
  for await (const chunk of bodyOf(blob, start, stop, fault)) {
    const limit = (fault.cutAt ?? fault.stallAt ?? Number.POSITIVE_INFINITY) - sent
    const piece = chunk.length > limit ? chunk.subarray(0, limit) : chunk
    if (!response.write(piece)) await drained(response)
    sent += piece.length
    request.sent = sent
    if (response.destroyed) return
    if (chunk.length < limit) continue
    // What was written has to leave before the connection goes.
    if (fault.cutAt !== undefined) await sleep(20).then(() => response.destroy())
    return
  }
  response.end()
}

/** Resolves when the socket takes more, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const done = () => {
    response.off('drain', done).off('close', done)
    resolve()
  }
  response.on('drain', done).on('close', done)
  return promise
}

async function* bodyOf(blob: Blob, start: number, end: number, fault: Fault): AsyncGenerator<Buffer> {
  const source = Buffer.isBuffer(blob.data)
    ? Readable.from([blob.data.subarray(start, end)])
    : createReadStream(blob.data.file, { start, end: end - 1, highWaterMark: 256 * 1024 })
  let at = start
  for await (const whole of source) {
    const chunk =
      fault.corrupt === true && at + whole.length === blob.size ? flipLast(whole) : (whole as Buffer)
    at += chunk.length
    const step = fault.trickle ?? chunk.length
    for (let offset = 0; offset < chunk.length; offset += step) {
      yield chunk.subarray(offset, offset + step)
      if (fault.trickle !== undefined) await sleep(10)
    }
  }
  if (fault.extraBytes !== undefined && end > blob.size) yield Buffer.alloc(fault.extraBytes)
}

function flipLast(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  copy[copy.length - 1] = copy[copy.length - 1]! ^ 0xff
  return copy
}
