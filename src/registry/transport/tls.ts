import { join } from 'node:path'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { BerthError, messageOf } from '../../base/errors.ts'
import { filesIn, readText } from '../read-text.ts'
import { WatchedFiles } from '../watched-files.ts'

export type TlsContext = {
  /** Changes with the files it was made from. */
  readonly id: number
  readonly context: SecureContext
}

/** Hosts with certificates of their own; more than any node talks to. */
const MAX_HOSTS = 1000

/**
 * Certificates by host, laid out as containers-certs.d(5) says: in `<directory>/<host[:port]>/` every `*.crt` is a
 * further authority, every `*.cert` with its `*.key` a client certificate. Of several directories the first that has
 * the host counts.
 */
export class TlsContexts {
  readonly #directories: readonly string[]
  readonly #hosts = new Map<string, WatchedFiles<TlsContext>>()
  #plain: TlsContext | undefined
  #nextId = 1

  constructor(directories: readonly string[]) {
    this.#directories = directories
  }

  /** @throws BerthError unknown, naming the file that is no certificate */
  for(url: URL): TlsContext {
    let watched = this.#hosts.get(url.host)
    if (watched === undefined) {
      // `https://host:443` is `https://host` to a URL, but not to who named the directory.
      const names = url.port === '' ? [url.host, `${url.host}:443`] : [url.host]
      watched = new WatchedFiles(
        () => this.#filesOf(names),
        files => (files.length === 0 ? this.#withoutFiles() : this.#load(files)),
      )
      if (this.#hosts.size >= MAX_HOSTS) this.#hosts.clear()
      this.#hosts.set(url.host, watched)
    }
    return watched.current()
  }

  #filesOf(names: readonly string[]): readonly string[] {
    for (const directory of this.#directories) {
      for (const name of names) {
        if (name.startsWith('.')) continue
        const files = filesIn(join(directory, name), '.crt', '.cert', '.key')
        if (files.length > 0) return files
      }
    }
    return []
  }

  /** Shared by all hosts without files: a context with all authorities takes 50 ms and more than a megabyte. */
  #withoutFiles(): TlsContext {
    this.#plain ??= { id: 0, context: createSecureContext({ ca: nodeAuthorities() }) }
    return this.#plain
  }

  #load(files: readonly string[]): TlsContext {
    const certificates = files.filter(file => file.endsWith('.cert'))
    const keys = certificates.map(file => `${file.slice(0, -'.cert'.length)}.key`)
    const orphan = [...certificates, ...files].find((file, index) => {
      if (index < certificates.length) return !files.includes(keys[index]!)
      return file.endsWith('.key') && !keys.includes(file)
    })
    if (orphan !== undefined) {
      throw new BerthError(
        'unknown',
        `${orphan}: a client certificate needs a .cert and a .key file of the same name`,
      )
    }
    const read = (file: string) => readText(file) ?? ''
    try {
      const context = createSecureContext({
        ca: [...nodeAuthorities(), ...files.filter(file => file.endsWith('.crt')).map(read)],
        ...(certificates.length === 0 ? {} : { cert: certificates.map(read), key: keys.map(read) }),
      })
      return { id: this.#nextId++, context }
    } catch (error) {
      throw new BerthError(
        'unknown',
        `${files.join(', ')}: not usable as certificates: ${messageOf(error)}`,
        error,
      )
    }
  }
}

/** The authorities that the node's administrator installed; those that came with Node only if there are none. */
function nodeAuthorities(): string[] {
  const system = getCACertificates('system')
  // The bundle and the hashed directory name most of them twice.
  return system.length > 0 ? [...new Set(system)] : getCACertificates('bundled')
}
