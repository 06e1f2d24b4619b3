import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { BerthError, messageOf } from '../../base/errors.ts'
import { WatchedFiles } from '../../os/watched-files.ts'
import type { EndpointTls } from '../endpoint.ts'
import { directoryNames } from '../hosts-dirs.ts'
import { filesIn, readText } from '../read-text.ts'

export type TlsContext = {
  /** Changes with the files it was made from. */
  readonly id: number
  readonly context: SecureContext
}

/** Hosts with certificates of their own; more than any node talks to. */
const MAX_HOSTS = 1000

/**
 * Certificates by host, laid out as containers-certs.d(5) says: in `<directory>/<host[:port]>/` (or `<host>_<port>_`,
 * as containerd writes it) every `*.crt` is a further authority, every `*.cert` with its `*.key` a client certificate.
 * Of several directories the first that has certificates of the host counts.
 */
export class TlsContexts {
  readonly #directories: readonly string[]
  readonly #hosts = new Map<string, WatchedFiles<TlsContext>>()
  #plain: TlsContext | undefined
  #nextId = 1

  constructor(directories: readonly string[]) {
    this.#directories = directories
  }

  /**
   * @param own files of the endpoint, beside those of the host's directory
   * @throws BerthError unknown, naming the file that is no certificate
   */
  for(url: URL, own: EndpointTls): TlsContext {
    const key = JSON.stringify([url.host, own])
    let watched = this.#hosts.get(key)
    if (watched === undefined) {
      watched = this.#watch(url, own)
      if (this.#hosts.size >= MAX_HOSTS) this.#hosts.clear()
      this.#hosts.set(key, watched)
    }
    return watched.current()
  }

  /** The certificates of the first directory that has any for the host. */
  filesFor(url: URL): readonly string[] {
    // `https://host:443` is `https://host` to a URL, but not to who named the directory.
    const hosts = url.port === '' ? [url.host, `${url.host}:443`] : [url.host]
    const names = hosts.flatMap(directoryNames).filter(name => !name.startsWith('.'))
    for (const directory of this.#directories) {
      for (const name of names) {
        const files = filesIn(join(directory, name), '.crt', '.cert', '.key')
        if (files.length > 0) return files
      }
    }
    return []
  }

  #watch(url: URL, own: EndpointTls): WatchedFiles<TlsContext> {
    const named = [...own.ca, ...own.client.flatMap(({ cert, key }) => [cert, key])]
    return new WatchedFiles(
      () => [...this.filesFor(url), ...named],
      files =>
        files.length === 0
          ? this.#withoutFiles()
          : this.#load(files.slice(0, files.length - named.length), own),
    )
  }

  /** Shared by all hosts without files: a context with all authorities takes 50 ms and more than a megabyte. */
  #withoutFiles(): TlsContext {
    this.#plain ??= { id: 0, context: createSecureContext({ ca: nodeAuthorities() }) }
    return this.#plain
  }

  #load(files: readonly string[], own: EndpointTls): TlsContext {
    const authorities = [...files.filter(file => file.endsWith('.crt')), ...own.ca]
    const pairs = [...pairsOf(files), ...own.client]
    try {
      const context = createSecureContext({
        ca: [...nodeAuthorities(), ...authorities.map(readCertificate)],
        ...(pairs.length === 0
          ? {}
          : {
              cert: pairs.map(({ cert }) => readCertificate(cert)),
              key: pairs.map(({ key }) => readCertificate(key)),
            }),
      })
      return { id: this.#nextId++, context }
    } catch (error) {
      if (error instanceof BerthError) throw error
      const all = [...files, ...own.ca, ...own.client.flatMap(({ cert, key }) => [cert, key])]
      const names = [...new Set(all)].join(', ')
      throw new BerthError('unknown', `${names}: not usable as certificates: ${messageOf(error)}`, error)
    }
  }
}

/** Client certificates of a directory. Beside a hosts.toml, which names its own, half a pair means nothing. */
function pairsOf(files: readonly string[]): EndpointTls['client'] {
  const keyOf = (cert: string) => `${cert.slice(0, -'.cert'.length)}.key`
  const certificates = files.filter(file => file.endsWith('.cert'))
  const keys = certificates.map(keyOf)
  const isOrphan = (file: string) =>
    (file.endsWith('.cert') && !files.includes(keyOf(file))) ||
    (file.endsWith('.key') && !keys.includes(file))
  const orphan = files.find(isOrphan)
  if (orphan !== undefined && !existsSync(join(dirname(orphan), 'hosts.toml'))) {
    const what = 'a client certificate needs a .cert and a .key file of the same name'
    throw new BerthError('unknown', `${orphan}: ${what}`)
  }
  return certificates.filter(cert => !isOrphan(cert)).map(cert => ({ cert, key: keyOf(cert) }))
}

/** A file that hosts.toml names must be there; one of a directory was there a moment ago. */
function readCertificate(file: string): string {
  const text = readText(file)
  if (text === undefined) throw new BerthError('unknown', `${file}: no such file`)
  return text
}

/** The authorities that the node's administrator installed; those that came with Node only if there are none. */
function nodeAuthorities(): string[] {
  const system = getCACertificates('system')
  // The bundle and the hashed directory name most of them twice.
  return system.length > 0 ? [...new Set(system)] : getCACertificates('bundled')
}
