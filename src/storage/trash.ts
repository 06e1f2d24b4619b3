import { readdirSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import { removeTree } from '../os/files.ts'

/**
 * Directories on their way out: renamed into one folder of the same file system, then deleted in the background,
 * one at a time. The folder is the queue, so a killed daemon forgets nothing.
 */
export class Trash {
  readonly #dir: string
  readonly #warn: (path: string, error: unknown) => void
  /** Names that could not be deleted; tried again at the next sweep. */
  readonly #stuck = new Set<string>()
  #isEmptying = false
  #isClosed = false

  constructor(dir: string, warn: (path: string, error: unknown) => void) {
    this.#dir = dir
    this.#warn = warn
  }

  /** Gone by its name when this returns; nothing happens if there is nothing. */
  discard(path: string): void {
    const grave = join(this.#dir, `${basename(path)}.${newId()}`)
    try {
      effectSync('storage', 'discard', path, () => renameSync(path, grave))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return
      throw error
    }
    void this.#empty()
  }

  /** Tries everything again, in the background too. */
  sweep(): void {
    this.#stuck.clear()
    void this.#empty()
  }

  /** Begins with no further directory; what is left waits for the next sweep. */
  close(): void {
    this.#isClosed = true
  }

  async #empty(): Promise<void> {
    if (this.#isEmptying) return
    this.#isEmptying = true
    await this.#deleteAll()
    this.#isEmptying = false
  }

  async #deleteAll(): Promise<void> {
    for (let name = this.#next(); name !== undefined; name = this.#next()) {
      const path = join(this.#dir, name)
      try {
        await removeTree(path)
      } catch (error) {
        this.#stuck.add(name)
        this.#warn(path, error)
      }
    }
  }

  #next(): string | undefined {
    if (this.#isClosed) return undefined
    return readdirSync(this.#dir).find(name => !this.#stuck.has(name))
  }
}
