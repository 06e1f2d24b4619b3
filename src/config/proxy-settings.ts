import { inspect } from 'node:util'

type Environment = Readonly<Record<string, string | undefined>>

/**
 * HTTP_PROXY, HTTPS_PROXY and NO_PROXY. A proxy's URL may hold a password: printed or logged it shows its host
 * only, and no child process gets it.
 */
export class ProxySettings {
  readonly #http: string
  readonly #https: string
  /** Hosts and domains to reach directly, separated by commas, as in the variable. */
  readonly noProxy: string

  constructor(env: Environment) {
    // Both spellings are in use; the lower-case one is the older.
    const read = (name: string) => env[name] || env[name.toLowerCase()] || ''
    this.#http = read('HTTP_PROXY')
    this.#https = read('HTTPS_PROXY')
    this.noProxy = read('NO_PROXY')
  }

  /** '' for a direct connection. */
  get http(): string {
    return this.#http
  }

  get https(): string {
    return this.#https
  }

  toJSON() {
    return { http: withoutUser(this.#http), https: withoutUser(this.#https), noProxy: this.noProxy }
  }

  [inspect.custom]() {
    return this.toJSON()
  }
}

function withoutUser(url: string): string {
  if (url === '') return ''
  const parsed = URL.parse(url.includes('://') ? url : `http://${url}`)
  return parsed === null ? '[not a URL]' : `${parsed.protocol}//${parsed.host}`
}
