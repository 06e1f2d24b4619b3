import { statSync } from 'node:fs'
import { join } from 'node:path'
import { WatchedFiles } from '../os/watched-files.ts'
import { type HostsFile, parseHostsFile } from './hosts-file.ts'
import { readText } from './read-text.ts'

const FILE = 'hosts.toml'
/** Of hosts that have no directory of their own. */
const DEFAULT = '_default'

/** More registries than any node pulls from. */
const MAX_HOSTS = 1000

/** The `hosts.toml` of registries, each read again when it changes, appears or goes. */
export class HostsDirs {
  readonly #directories: readonly string[]
  readonly #hosts = new Map<string, WatchedFiles<HostsFile | undefined>>()

  /** @param directories with one directory for each host, the most important first; they need not exist */
  constructor(directories: readonly string[]) {
    this.#directories = directories
  }

  /**
   * @param domain `host[:port]` of a reference
   * @throws BerthError unknown, with everything that is wrong with the file
   */
  find(domain: string): HostsFile | undefined {
    let watched = this.#hosts.get(domain)
    if (watched === undefined) {
      watched = new WatchedFiles(
        () => this.#candidates(domain),
        files => firstOf(files),
      )
      if (this.#hosts.size >= MAX_HOSTS) this.#hosts.clear()
      this.#hosts.set(domain, watched)
    }
    return watched.current()
  }

  /** In the order in which they count. A host with a directory of its own does without `_default` beside it. */
  #candidates(domain: string): string[] {
    const names = directoryNames(domain)
    return this.#directories.flatMap(directory => {
      const own = names.map(name => join(directory, name))
      const all = own.some(isDirectory) ? own : [...own, join(directory, DEFAULT)]
      return all.map(path => join(path, FILE))
    })
  }
}

/** `host:5000` is looked for as `host_5000_` first: colons are not for every file system. */
export function directoryNames(domain: string): string[] {
  const colon = domain.lastIndexOf(':')
  const hasPort = colon > 0 && colon > domain.lastIndexOf(']')
  return hasPort ? [`${domain.slice(0, colon)}_${domain.slice(colon + 1)}_`, domain] : [domain]
}

function firstOf(files: readonly string[]): HostsFile | undefined {
  for (const file of files) {
    const source = readText(file)
    if (source !== undefined) return parseHostsFile(file, source)
  }
  return undefined
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}
