import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions, type SecureVersion, type Server } from 'node:tls'
import { BerthError, messageOf } from '../base/errors.ts'
import type { Log } from '../observe/log.ts'
import { WatchedFiles } from '../os/watched-files.ts'

export type TlsFiles = {
  /** PEM files. `ca` signs the certificates that clients have to show; '' asks for none. */
  readonly cert: string
  readonly key: string
  readonly ca: string
  readonly minVersion: SecureVersion
  /** Cipher suites of TLS 1.2 by their IANA names; empty for the default. */
  readonly cipherSuites: readonly string[]
}

/** The certificate of the streaming server, read again when an administrator has replaced it. */
export class ServerCertificate {
  readonly #files: WatchedFiles<SecureContextOptions>
  readonly #log: Pick<Log, 'info' | 'warn'>
  #current: SecureContextOptions
  #refused = ''

  /** @throws BerthError invalid when the files cannot be used */
  constructor(files: TlsFiles, log: Pick<Log, 'info' | 'warn'>) {
    const { cert, key, ca } = files
    this.#files = new WatchedFiles(
      () => [cert, key, ...(ca === '' ? [] : [ca])],
      () => loadContext(files),
    )
    this.#log = log
    this.#current = this.#files.current()
  }

  get options(): SecureContextOptions {
    return this.#current
  }

  /** Has `server` use what the files hold now. Files that fit together no more, as in mid-change, are left alone. */
  refresh(server: Pick<Server, 'setSecureContext'>): void {
    try {
      const context = this.#files.current()
      if (context === this.#current) return
      server.setSecureContext(context)
      this.#current = context
      this.#refused = ''
      this.#log.info({}, 'the certificate of the streaming server was read again')
    } catch (error) {
      if (this.#refused !== messageOf(error)) {
        this.#refused = messageOf(error)
        this.#log.warn(
          { error },
          'the certificate of the streaming server was not read again; the old one stays',
        )
      }
    }
  }
}

function loadContext({ cert, key, ca, minVersion, cipherSuites }: TlsFiles): SecureContextOptions {
  const options: SecureContextOptions = {
    cert: pem(cert),
    key: pem(key),
    minVersion,
    ...(ca === '' ? {} : { ca: pem(ca) }),
    ...(cipherSuites.length === 0 ? {} : { ciphers: [...TLS13_SUITES, ...cipherSuites].join(':') }),
  }
  for (const suite of cipherSuites) checkSuite(suite)
  try {
    createSecureContext(options)
  } catch (error) {
    throw new BerthError(
      'invalid',
      `stream_tls_cert ${cert}, stream_tls_key ${key}: ${messageOf(error)}`,
      error,
    )
  }
  return options
}

/** Named together with those of TLS 1.2, or none of them would be offered. */
const TLS13_SUITES = ['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256']

/** In a list, one that is unknown would just be left out. */
function checkSuite(suite: string): void {
  try {
    createSecureContext({ ciphers: suite })
  } catch (error) {
    throw new BerthError('invalid', `tls_cipher_suites: ${suite} is not known`, error)
  }
}

function pem(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new BerthError(
      'invalid',
      `the TLS file of the streaming server cannot be read: ${messageOf(error)}`,
      error,
    )
  }
}
