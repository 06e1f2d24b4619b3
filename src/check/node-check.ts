import { existsSync } from 'node:fs'
import { sleep } from '../base/clock.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import type { NodePaths } from '../config/paths.ts'
import type { ContainerContext } from '../containers/context.ts'
import { containerDifferences } from '../containers/differences.ts'
import type { Exits } from '../containers/exits.ts'
import type { ImageAdmin } from '../images/image-admin.ts'
import type { Busy, Difference } from '../model/difference.ts'
import type { NamespacePins } from '../os/namespaces.ts'
import type { PodContext } from '../pods/context.ts'
import { networkDifferences, podDifferences } from '../pods/differences.ts'
import type { Database } from '../state/database.ts'

export type NodeCheckOptions = {
  readonly paths: NodePaths
  readonly db: Database
  readonly containerContext: ContainerContext
  readonly podContext: PodContext
  readonly exits: Exits
  readonly pins: NamespacePins
  readonly images: Pick<ImageAdmin, 'differences'>
  /** Makes the directories that everything else is in. */
  readonly makeDirectories: () => void
  /** It is the daemon that looks; otherwise there is none. */
  readonly isServing: boolean
  /** Between two looks. */
  readonly confirmMs?: number
}

export type CheckEvent =
  | {
      readonly kind: 'difference'
      readonly difference: Difference
      readonly state: 'found' | 'repaired' | 'failed'
      /** Why its repair failed; '' otherwise. */
      readonly error: string
    }
  | {
      readonly kind: 'summary'
      readonly pods: number
      readonly containers: number
      readonly layers: number
      /** What was not compared. */
      readonly busy: readonly string[]
      /** Differences that are there now. */
      readonly left: number
    }

/**
 * What has just ended is noticed within milliseconds, and what is being done holds its lock: a difference that is
 * still there after so long, from a row that has not changed, is one.
 */
const CONFIRM_MS = 1000

/** Repairing one thing may show another: a pod whose row was lost, and then its address. */
const MAX_ROUNDS = 3

/**
 * Compares the rows with what is on the node, and makes both agree, by the same steps by which operations are undone
 * and a start recovers. What lives is left as it is.
 */
export class NodeCheck {
  readonly #options: NodeCheckOptions
  #isRunning = false

  constructor(options: NodeCheckOptions) {
    this.#options = options
  }

  /** @throws BerthError unavailable while another one runs */
  async *run(repair: boolean, signal: AbortSignal): AsyncGenerator<CheckEvent> {
    if (this.#isRunning) throw new BerthError('unavailable', 'the node is being checked already; ask again')
    this.#isRunning = true
    try {
      yield* this.#run(repair, signal)
    } finally {
      this.#isRunning = false
    }
  }

  async *#run(repair: boolean, signal: AbortSignal): AsyncGenerator<CheckEvent> {
    const busy: Busy = new Set()
    const tried = new Map<string, string>()
    let found = await this.#confirmed(busy, signal)
    for (let round = 0; repair && round < MAX_ROUNDS; round++) {
      const fresh = found.filter(difference => difference.fix !== undefined && !tried.has(keyOf(difference)))
      if (fresh.length === 0) break
      const fixed: Difference[] = []
      for (const difference of fresh) {
        signal.throwIfAborted()
        const error = await this.#fix(difference)
        tried.set(keyOf(difference), error)
        if (error === '') fixed.push(difference)
      }
      found = await this.#confirmed(busy, signal)
      const left = new Set(found.map(keyOf))
      for (const difference of fixed) {
        if (left.has(keyOf(difference))) tried.set(keyOf(difference), 'it is there still, or again')
        else yield { kind: 'difference', difference, state: 'repaired', error: '' }
      }
    }
    for (const difference of found) {
      const error = tried.get(keyOf(difference)) ?? ''
      yield { kind: 'difference', difference, state: error === '' ? 'found' : 'failed', error }
    }
    const { db, containerContext } = this.#options
    yield {
      kind: 'summary',
      pods: [...containerContext.catalog.pods()].length,
      containers: [...containerContext.catalog.containers()].length,
      layers: db.read.layers.committed().length,
      busy: [...busy].sort(),
      left: found.length,
    }
  }

  /** @returns why it failed, '' if it did not */
  async #fix(difference: Difference): Promise<string> {
    const { kind, subject, remedy } = difference
    const { log } = this.#options.podContext
    try {
      await difference.fix?.()
      log.warn({ kind, subject, remedy }, 'repaired on demand')
      return ''
    } catch (error) {
      log.error({ kind, subject, error: messageOf(error) }, 'a repair on demand failed')
      return messageOf(error)
    }
  }

  /** What two looks have found, both with the same row. */
  async #confirmed(busy: Busy, signal: AbortSignal): Promise<Difference[]> {
    busy.clear()
    const first = new Map((await this.#look(busy)).map(difference => [keyOf(difference), difference]))
    if (first.size === 0) return []
    await sleep(this.#options.confirmMs ?? CONFIRM_MS, signal)
    busy.clear()
    const second = await this.#look(busy)
    return second.filter(difference => {
      const before = first.get(keyOf(difference))
      return before !== undefined && before.row === difference.row
    })
  }

  /** In the order in which repairs make sense. */
  async #look(busy: Busy): Promise<Difference[]> {
    const { containerContext, podContext, exits, pins, images, isServing } = this.#options
    const podParent = podContext.defaultCgroup
    return [
      ...this.#databaseProblems(),
      ...this.#missingDirectories(),
      ...(await containerDifferences({ context: containerContext, exits, pins, podParent, isServing }, busy)),
      // While the namespaces are there: plugins read from them what they have to take back.
      ...(await networkDifferences(podContext)),
      ...podDifferences(podContext, isServing, busy),
      ...images.differences(isServing),
    ]
  }

  #databaseProblems(): Difference[] {
    const { db, paths } = this.#options
    return db.problems().map(problem => ({
      kind: 'database',
      subject: `${paths.database}: ${problem}`,
      found: `the file of the database is damaged: ${problem}`,
      cause: 'the disk lost a part of it, or somebody wrote to it',
      remedy: 'nothing: put back a copy of it; or stop the daemon, and "berth wipe" makes the node empty',
    }))
  }

  #missingDirectories(): Difference[] {
    const { paths, containerContext, makeDirectories } = this.#options
    const { snapshots } = containerContext
    const own = [paths.pods, paths.bundles, paths.exits, paths.sockets, paths.execs, paths.temporary]
    const all = [...own, paths.persistent, paths.cni, ...snapshots.directories()]
    return all
      .filter(path => !existsSync(path))
      .map(path => ({
        kind: 'directory-missing',
        subject: path,
        found: 'a directory that everything needs is missing: nothing new can be made, or no end be recorded',
        cause: 'somebody, or a cleaner of temporary files, removed it',
        remedy: 'make it again, as the next start of the daemon does',
        fix: async () => {
          makeDirectories()
          snapshots.makeDirectories()
        },
      }))
  }
}

function keyOf({ kind, subject }: Difference): string {
  return `${kind} ${subject}`
}
