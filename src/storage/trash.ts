import { existsSync, readdirSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import { sleep } from '../base/clock.ts'
import { effectSync } from '../base/effects.ts'
import { errnoOf, messageOf, precondition } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import { Retries } from '../base/retries.ts'
import type { Log } from '../observe/log.ts'
import { mountPointsBelow } from '../os/mounts.ts'
import { run } from '../os/spawn.ts'

// Deleting the 50 000 files of a layer would hold up the event loop by 150 ms; rm(1) does it elsewhere.
const RM = '/bin/rm'
// Their paths stay far below the 128 KiB that Linux takes as arguments in any case.
const MAX_AT_ONCE = 100
// Leaves whoever discards alone (a pod is often followed by the next), and makes one run of many containers.
const PAUSE_MS = 1000
// Millions of files on a slow disk; what is left then is tried again.
const TIMEOUT_MS = 30 * 60_000
// Enough to say what is wrong.
const MAX_OUTPUT = 4096

/**
 * Directories on their way out: renamed into one folder of the same file system, then deleted in the background. The
 * folder is the queue, so a killed daemon forgets nothing.
 */
export class Trash {
  readonly #dir: string
  readonly #log: Pick<Log, 'error' | 'warn' | 'info'>
  readonly #retries: Retries
  readonly #closing = new AbortController()
  /** Names that could not be deleted; tried again later, and at a sweep. */
  readonly #stuck = new Set<string>()
  /** Why the folder itself could not be looked through; undefined if it could. */
  #trouble: string | undefined
  #emptying: Promise<void> | undefined

  /** @param firstMs ms to the second try, as `Retries` has it unless given */
  constructor(dir: string, log: Pick<Log, 'error' | 'warn' | 'info'>, firstMs?: number) {
    this.#dir = dir
    this.#log = log
    this.#retries = new Retries({ log, ...(firstMs === undefined ? {} : { firstMs }) })
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
    this.#empty()
  }

  /** Tries everything again. */
  sweep(): void {
    this.#stuck.clear()
    this.#empty()
  }

  /** Until there is nothing left that can be deleted. @returns what is left and why; undefined if nothing is */
  async emptied(): Promise<string | undefined> {
    await this.#emptying
    if (this.#closing.signal.aborted) return `${this.#dir} is emptied at the next start`
    if (this.#trouble !== undefined) return `${this.#dir} cannot be emptied: ${this.#trouble}`
    if (this.#stuck.size === 0) return undefined
    const [first] = this.#stuck
    return `${this.#dir}: ${this.#stuck.size} directories could not be deleted, ${first} among them`
  }

  /** What is not deleted by now waits for the next sweep. */
  async close(): Promise<void> {
    this.#retries.close()
    this.#closing.abort()
    await this.#emptying
  }

  #empty(): void {
    this.#emptying ??= this.#deleteAll()
  }

  async #deleteAll(): Promise<void> {
    await sleep(PAUSE_MS, this.#closing.signal).catch(() => undefined)
    try {
      for (let names = this.#next(); names.length > 0; names = this.#next()) await this.#delete(names)
      this.#trouble = undefined
    } catch (error) {
      this.#trouble = messageOf(error)
      this.#later([this.#dir], this.#trouble)
    } finally {
      this.#emptying = undefined // what is discarded from here on starts anew
    }
  }

  #later(paths: readonly string[], error: string): void {
    this.#log.error({ paths, error }, 'trash not deleted')
    this.#retries.later(`emptying ${this.#dir}`, async () => {
      this.sweep()
      const left = await this.emptied()
      if (left !== undefined) throw precondition(left)
    })
  }

  #next(): string[] {
    if (this.#closing.signal.aborted) return []
    return readdirSync(this.#dir)
      .filter(name => !this.#stuck.has(name))
      .slice(0, MAX_AT_ONCE)
  }

  async #delete(names: readonly string[]): Promise<void> {
    const mounted = mountPointsBelow(this.#dir)
    const isMounted = (path: string) => mounted.some(at => at === path || at.startsWith(`${path}/`))
    const paths = names.map(name => join(this.#dir, name))
    const trouble = await this.#remove(paths.filter(path => !isMounted(path)))
    const left = paths.filter(path => existsSync(path))
    if (left.length === 0 || this.#closing.signal.aborted) return
    for (const path of left) this.#stuck.add(basename(path))
    this.#later(left, [trouble, ...mounted.map(at => `${at} is mounted`)].join('; '))
  }

  /** @returns what rm(1) said */
  async #remove(paths: readonly string[]): Promise<string> {
    if (paths.length === 0) return ''
    try {
      const { stderr } = await run(RM, {
        args: ['-rf', '--one-file-system', '--', ...paths],
        env: {},
        timeoutMs: TIMEOUT_MS,
        maxOutput: MAX_OUTPUT,
        signal: this.#closing.signal,
      })
      return stderr.toString().trim()
    } catch (error) {
      return messageOf(error)
    }
  }
}
