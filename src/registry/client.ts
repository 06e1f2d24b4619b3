import { existsSync } from 'node:fs'
import type { Log } from '../observe/log.ts'
import type { Credentials } from './credentials.ts'
import { Allowance, type RangeOptions } from './download.ts'
import { type Endpoint, NO_TLS_FILES } from './endpoint.ts'
import { type NamespaceAuth, NodeCredentials } from './node-credentials.ts'
import { nodePlatform, type Platform } from './platform.ts'
import type { Reference } from './reference.ts'
import type { Registry, Repository } from './registry.ts'
import { EndpointRepository } from './repository.ts'
import { Routes } from './routes.ts'
import { hostOf } from './transport/addresses.ts'
import { Connections, DEFAULT_CONNECT_TIMEOUT_MS } from './transport/connections.ts'
import { Failure } from './transport/failure.ts'
import { type HttpResponse, send } from './transport/http.ts'
import type { ProxySettings } from './transport/proxy.ts'
import { DEFAULT_RETRY, type RetryPolicy } from './transport/retry.ts'
import { type FindCredentials, Session, type Shared } from './transport/session.ts'
import { Tokens } from './transport/tokens.ts'

export type RegistryOptions = {
  /** Path of registries.conf; it need not exist. */
  readonly registriesConf: string
  /** Directory of its drop-ins; it need not exist. */
  readonly registriesConfDir: string
  /** `host[:port]` of registries that may be asked over http or with an unknown certificate. */
  readonly insecureRegistries?: readonly string[]
  /** auth.json and config.json files, the most important first; they need not exist. */
  readonly authFiles: readonly string[]
  /** Directory of auth files for one pull of one namespace; '' or undefined: none. */
  readonly namespacedAuthDir?: string
  /** The whole environment of credential helpers; they are looked for in its PATH. */
  readonly helperEnv?: Readonly<Record<string, string>>
  /** Directories with a directory for each host, for hosts.toml and certificates, the most important first. */
  readonly certDirs: readonly string[]
  readonly proxy?: ProxySettings
  /** `berth/1.2.3` */
  readonly userAgent: string
  readonly log?: Log
  readonly platform?: Platform
  readonly connectTimeoutMs?: number
  /** A request that receives nothing for so long is given up; 0: never. Default 5 minutes. */
  readonly progressTimeoutMs?: number
  readonly retry?: RetryPolicy
  /** Bytes of one request for a part of a layer. */
  readonly chunkSize?: number
  /** Requests for one layer at the same time, at most; 1: layers come in one piece. */
  readonly chunkConnections?: number
}

const DEFAULT_PROGRESS_TIMEOUT_MS = 300_000

/**
 * Long enough that what a request costs (a redirect, the first byte of an object store: 0.1 s) is a small part of it at
 * the 10 to 50 MB/s that one connection often gets, and short enough to hold several in memory.
 */
const DEFAULT_CHUNK_SIZE = 2 * 1024 * 1024
/** Beyond it registries answer "too many requests", and the workers that unpack have more than they can take. */
const DEFAULT_CHUNK_CONNECTIONS = 4
/** Layers that are unpacked while they come: the parts ahead of them are what this client holds in memory. */
const LAYERS_IN_PARTS = 2

/** The client of the OCI distribution API. Its files are read when they are first needed, and again when they change. */
export function createRegistry(options: RegistryOptions): Registry {
  return new RegistryClient(options)
}

class RegistryClient implements Registry {
  readonly #options: RegistryOptions
  readonly #routes: Routes
  readonly #credentials: NodeCredentials
  readonly #shared: Shared
  readonly #ranges: RangeOptions

  constructor(options: RegistryOptions) {
    const { registriesConf, registriesConfDir, insecureRegistries, certDirs, userAgent } = options
    this.#options = options
    this.#routes = new Routes({
      file: registriesConf,
      directory: registriesConfDir,
      insecure: insecureRegistries ?? [],
      hostsDirs: certDirs,
    })
    this.#credentials = new NodeCredentials({
      authFiles: options.authFiles,
      namespacedAuthDir: options.namespacedAuthDir ?? '',
      helperEnv: options.helperEnv ?? {},
    })
    const connections = new Connections({
      certDirs,
      proxy: options.proxy ?? { http: '', https: '', noProxy: '' },
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      progressTimeoutMs: options.progressTimeoutMs ?? DEFAULT_PROGRESS_TIMEOUT_MS,
    })
    const tokens = new Tokens(connections, userAgent, options.log)
    const perLayer = options.chunkConnections ?? DEFAULT_CHUNK_CONNECTIONS
    this.#ranges = {
      chunkSize: options.chunkSize ?? DEFAULT_CHUNK_SIZE,
      connections: perLayer,
      ahead: new Allowance(LAYERS_IN_PARTS * perLayer),
    }
    this.#shared = { connections, tokens, userAgent, schemes: new Map() }
  }

  candidates(name: string): readonly Reference[] {
    return this.#routes
      .registries()
      .meanings(name)
      .map(({ reference }) => reference)
  }

  namespaceAuthFile(name: string, namespace: string): string {
    const files = this.candidates(name).map(
      reference => this.#credentials.namespaceFile(reference, namespace) ?? '',
    )
    return files.find(file => file !== '' && existsSync(file)) ?? ''
  }

  repository(reference: Reference, credentials: Credentials | undefined, namespace = ''): Repository {
    const { endpoints } = this.#routes.find(reference)
    const own = this.#credentials.takeNamespaceAuth(reference, namespace)
    const sessions = endpoints.map(
      endpoint => new Session(endpoint, this.#credentialsFor(endpoint, credentials, own), this.#shared),
    )
    return new EndpointRepository(reference, sessions, {
      retry: this.#options.retry ?? DEFAULT_RETRY,
      ranges: this.#ranges,
      platform: this.#options.platform ?? nodePlatform(),
      log: this.#options.log,
      openUrl: (url, headers, signal) => this.#openUrl(reference, url, headers, signal),
    })
  }

  close(): Promise<void> {
    return this.#shared.connections.close()
  }

  /** A credential goes to the host it names; one that names none goes to the registry itself, not to its mirrors. */
  #credentialsFor(
    endpoint: Endpoint,
    given: Credentials | undefined,
    own: NamespaceAuth | undefined,
  ): FindCredentials {
    const fits =
      given !== undefined && (given.server === '' ? !endpoint.mirror : given.server === endpoint.host)
    if (fits) return async () => given
    const sources = this.#credentials.sources(endpoint, this.#routes.registries(), own)
    return signal => this.#credentials.first(sources, endpoint, signal)
  }

  /** A foreign layer: from a host that the image names, so without credentials and with verification. */
  async #openUrl(
    reference: Reference,
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const parsed = URL.parse(url)
    if (parsed?.protocol !== 'https:' || parsed.username !== '' || parsed.password !== '') {
      throw new Failure('refused', 'the layer names a URL that is not https')
    }
    const { connections, userAgent } = this.#shared
    const response = await send(connections, {
      purpose: 'get-foreign-blob',
      url: parsed,
      headers: { 'user-agent': userAgent, ...headers },
      access: {
        insecure: false,
        tls: NO_TLS_FILES,
        connectTimeoutMs: undefined,
        guard: { from: hostOf(new URL(`https://${reference.domain}`)) },
      },
      signal,
    })
    if ([200, 206, 416].includes(response.status)) return response
    throw await response.failure()
  }
}
