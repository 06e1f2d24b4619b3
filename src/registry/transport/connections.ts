import { Agent, type buildConnector, type Dispatcher, ProxyAgent } from 'undici'
import type { EndpointTls } from '../endpoint.ts'
import { guardedLookup } from './addresses.ts'
import { type ProxySettings, proxyFor } from './proxy.ts'
import { TlsContexts } from './tls.ts'

export type ConnectionOptions = {
  readonly certDirs: readonly string[]
  readonly proxy: ProxySettings
  readonly connectTimeoutMs: number
  /** A request that waits longer for its next byte is given up; 0 is never. It stands still while nobody reads. */
  readonly progressTimeoutMs: number
}

/** How a host may be reached. */
export type Access = {
  /** Certificates are not verified. */
  readonly insecure: boolean
  readonly tls: EndpointTls
  /** undefined: the client's. */
  readonly connectTimeoutMs: number | undefined
  /** The host was not configured but named by the host `from`: see `forbiddenAddress`. */
  readonly guard: { readonly from: string } | undefined
}

/** Three lost SYN packets (1 + 2 + 4 s) are survived; a dead mirror costs no more than this. */
export const DEFAULT_CONNECT_TIMEOUT_MS = 10_000

/** Enough for every layer of some large pulls at once; beyond it requests queue. */
const MAX_CONNECTIONS_PER_ORIGIN = 32

/** Distinct combinations of certificates, verification, time limit, guard and proxy; the longest unused goes. */
const MAX_POOLS = 64

/** Keep-alive connections, one pool per way of securing them. */
export class Connections {
  readonly #options: ConnectionOptions
  readonly #tls: TlsContexts
  readonly #pools = new Map<string, Dispatcher>()

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#tls = new TlsContexts(options.certDirs)
  }

  /** @throws BerthError unknown for certificate files that cannot be used */
  for(url: URL, access: Access): Dispatcher {
    const { insecure, guard } = access
    const timeout = access.connectTimeoutMs ?? this.#options.connectTimeoutMs
    const proxy = proxyFor(url, this.#options.proxy)
    const tls = url.protocol === 'https:' ? this.#tls.for(url, access.tls) : undefined
    const key = JSON.stringify([tls?.id, insecure, proxy, timeout, guard?.from])
    const known = this.#pools.get(key)
    this.#pools.delete(key)
    const pool =
      known ??
      this.#open(proxy, {
        timeout,
        // Behind a proxy the name is the proxy's to look up.
        ...(guard === undefined || proxy !== undefined ? {} : { lookup: guardedLookup(guard.from) }),
        ...(tls === undefined ? {} : { secureContext: tls.context, rejectUnauthorized: !insecure }),
      })
    this.#pools.set(key, pool)
    this.#evict()
    return pool
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()]
    this.#pools.clear()
    await Promise.all(pools.map(pool => pool.destroy()))
  }

  #open(proxy: string | undefined, connect: buildConnector.BuildOptions): Dispatcher {
    const common = {
      headersTimeout: this.#options.progressTimeoutMs,
      bodyTimeout: this.#options.progressTimeoutMs,
      connections: MAX_CONNECTIONS_PER_ORIGIN,
      // One download per connection: streams of one HTTP/2 connection would share its flow control window.
      allowH2: false,
    }
    if (proxy === undefined) return new Agent({ ...common, connect })
    return new ProxyAgent({
      ...common,
      uri: proxy,
      connectTimeout: connect.timeout ?? this.#options.connectTimeoutMs,
      requestTls: connect,
    })
  }

  #evict(): void {
    if (this.#pools.size <= MAX_POOLS) return
    const [oldest] = this.#pools
    if (oldest === undefined) return
    this.#pools.delete(oldest[0])
    // Running requests end first; nobody waits for that.
    oldest[1].close().catch(() => undefined)
  }
}
