import { statSync } from 'node:fs'
import { errnoOf } from '../base/errors.ts'

/**
 * Something made from files that an administrator edits while the daemon runs: made again when one of them appeared,
 * changed or went. A stat per file and use costs microseconds, needs no descriptor and misses nothing a watch would
 * lose.
 */
export class WatchedFiles<T> {
  readonly #list: () => readonly string[]
  readonly #load: (files: readonly string[]) => T
  #loaded: { readonly fingerprint: string; readonly value: T } | undefined

  /** `list` names files that need not exist; `load` may throw, and is then asked again the next time. */
  constructor(list: () => readonly string[], load: (files: readonly string[]) => T) {
    this.#list = list
    this.#load = load
  }

  current(): T {
    const files = this.#list()
    const fingerprint = files.map(fingerprintOf).join('\n')
    if (this.#loaded?.fingerprint !== fingerprint) this.#loaded = { fingerprint, value: this.#load(files) }
    return this.#loaded.value
  }
}

function fingerprintOf(file: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true })
    return [file, dev, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error) {
    return `${file} ${errnoOf(error) ?? 'unreadable'}`
  }
}
