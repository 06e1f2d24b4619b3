import type { Log } from '../observe/log.ts'
import { AuthFiles } from './auth-files.ts'
import type { Credentials } from './credentials.ts'
import { nodePlatform, type Platform } from './platform.ts'
import type { Reference } from './reference.ts'
import { type Endpoint, type Registries, watchRegistries } from './registries.ts'
import type { Registry, Repository } from './registry.ts'
import { EndpointRepository } from './repository.ts'
import { Connections, DEFAULT_CONNECT_TIMEOUT_MS } from './transport/connections.ts'
import { Failure } from './transport/failure.ts'
import { type HttpResponse, send } from './transport/http.ts'
import type { ProxySettings } from './transport/proxy.ts'
import { DEFAULT_RETRY, type RetryPolicy } from './transport/retry.ts'
import { Session, type Shared } from './transport/session.ts'
import { Tokens } from './transport/tokens.ts'
import type { WatchedFiles } from './watched-files.ts'

export type RegistryOptions = {
  /** Path of registries.conf; it need not exist. */
  readonly registriesConf: string
  /** Directory of its drop-ins; it need not exist. */
  readonly registriesConfDir: string
  /** `host[:port]` of registries that may be asked over http or with an unknown certificate. */
  readonly insecureRegistries?: readonly string[]
  /** auth.json and config.json files, the most important first; they need not exist. */
  readonly authFiles: readonly string[]
  /** Directories of certificates by host, the most important first. */
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
}

const DEFAULT_PROGRESS_TIMEOUT_MS = 300_000

/** The client of the OCI distribution API. Its files are read when they are first needed, and again when they change. */
export function createRegistry(options: RegistryOptions): Registry {
  return new RegistryClient(options)
}

class RegistryClient implements Registry {
  readonly #options: RegistryOptions
  readonly #registries: WatchedFiles<Registries>
  readonly #authFiles: AuthFiles
  readonly #shared: Shared

  constructor(options: RegistryOptions) {
    const { registriesConf, registriesConfDir, insecureRegistries, userAgent } = options
    this.#options = options
    this.#registries = watchRegistries({
      file: registriesConf,
      directory: registriesConfDir,
      insecure: insecureRegistries ?? [],
    })
    this.#authFiles = new AuthFiles(options.authFiles, options.log)
    const connections = new Connections({
      certDirs: options.certDirs,
      proxy: options.proxy ?? { http: '', https: '', noProxy: '' },
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      progressTimeoutMs: options.progressTimeoutMs ?? DEFAULT_PROGRESS_TIMEOUT_MS,
    })
    const tokens = new Tokens(connections, userAgent, options.log)
    this.#shared = { connections, tokens, userAgent, schemes: new Map() }
  }

  candidates(name: string): readonly Reference[] {
    return this.#registries.current().candidates(name)
  }

  repository(reference: Reference, credentials: Credentials | undefined): Repository {
    const sessions = this.#registries
      .current()
      .endpoints(reference)
      .map(endpoint => new Session(endpoint, this.#credentialsFor(endpoint, credentials), this.#shared))
    return new EndpointRepository(reference, sessions, {
      retry: this.#options.retry ?? DEFAULT_RETRY,
      platform: this.#options.platform ?? nodePlatform(),
      log: this.#options.log,
      openUrl: (url, headers, signal) => this.#openUrl(url, headers, signal),
    })
  }

  close(): Promise<void> {
    return this.#shared.connections.close()
  }

  /** A credential goes to the host it names; one that names none goes to the registry itself, not to its mirrors. */
  #credentialsFor(endpoint: Endpoint, given: Credentials | undefined): Credentials | undefined {
    const fits =
      given !== undefined && (given.server === '' ? !endpoint.mirror : given.server === endpoint.host)
    return fits ? given : this.#authFiles.find(endpoint)
  }

  /** A foreign layer: from a host that the image names, so without credentials and with verification. */
  async #openUrl(
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
      insecure: false,
      signal,
    })
    if ([200, 206, 416].includes(response.status)) return response
    throw await response.failure()
  }
}
