import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, messageOf } from '../base/errors.ts'
import { type CniNetwork, parseNetwork } from './cni-config.ts'

export type ConfigState = {
  /** The configuration in use: the first usable file in lexical order, or the one of the wanted name. */
  readonly active: { readonly file: string; readonly network: CniNetwork } | undefined
  /** Why files that come before it are not used, or why there is none: file or directory, then the reason. */
  readonly problems: readonly string[]
}

const EXTENSION = /\.(conflist|conf|json)$/
// Real ones are below 4 KiB, and every pod's row keeps a copy.
const MAX_FILE_BYTES = 64 * 1024
// A node has one to three. More than this is some other directory.
const MAX_FILES = 64

/**
 * A directory of CNI configurations, which others write whenever they like and which need not exist yet. Nothing is
 * watched: looking again costs one readdir and a stat per file, so every use looks again.
 */
export class CniConfigDir {
  readonly #dir: string
  readonly #wanted: string | undefined
  #fingerprint: string | undefined
  #state: ConfigState = { active: undefined, problems: [] }

  /** `wanted`: the network's name, or undefined for the first usable one. */
  constructor(dir: string, wanted: string | undefined) {
    this.#dir = dir
    this.#wanted = wanted
  }

  /** What the directory holds now. The same object as before when nothing has changed. */
  refresh(): ConfigState {
    const names = this.#names()
    const fingerprint =
      typeof names === 'string' ? names : names.map(name => this.#fingerprintOf(name)).join('\n')
    if (fingerprint === this.#fingerprint) return this.#state
    this.#fingerprint = fingerprint
    this.#state = typeof names === 'string' ? { active: undefined, problems: [names] } : this.#load(names)
    return this.#state
  }

  /** Candidate names in order, or why there are none. */
  #names(): readonly string[] | string {
    try {
      const names = readdirSync(this.#dir).filter(name => EXTENSION.test(name))
      if (names.length === 0) return `${this.#dir}: no .conflist, .conf or .json file`
      if (names.length > MAX_FILES)
        return `${this.#dir}: ${names.length} configurations, at most ${MAX_FILES} are read`
      return names.sort()
    } catch (error) {
      return errnoOf(error) === 'ENOENT' ? `${this.#dir}: does not exist` : messageOf(error)
    }
  }

  #fingerprintOf(name: string): string {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = statSync(join(this.#dir, name), { bigint: true })
      return [name, dev, ino, size, mtimeNs, ctimeNs].join(' ')
    } catch (error) {
      return `${name} ${messageOf(error)}`
    }
  }

  #load(names: readonly string[]): ConfigState {
    const problems: string[] = []
    for (const name of names) {
      const file = join(this.#dir, name)
      try {
        const network = parseNetwork(JSON.parse(readConfig(file)))
        if (this.#wanted === undefined || network.name === this.#wanted)
          return { active: { file, network }, problems }
        problems.push(
          `${file}: network ${JSON.stringify(network.name)} is not the configured default network`,
        )
      } catch (error) {
        problems.push(`${file}: ${messageOf(error)}`)
      }
    }
    if (this.#wanted !== undefined) {
      problems.push(
        `${this.#dir}: no network named ${JSON.stringify(this.#wanted)}, the configured default network`,
      )
    }
    return { active: undefined, problems }
  }
}

function readConfig(file: string): string {
  // O_NONBLOCK: a FIFO of that name must not stop the daemon.
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!fstatSync(fd).isFile()) throw new Error('expected a regular file')
    const buffer = Buffer.alloc(MAX_FILE_BYTES + 1)
    let length = 0
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(fd, buffer, length, buffer.length - length, null)
    }
    if (length > MAX_FILE_BYTES) throw new Error(`expected at most ${MAX_FILE_BYTES} bytes`)
    return buffer.toString('utf8', 0, length)
  } finally {
    closeSync(fd)
  }
}
