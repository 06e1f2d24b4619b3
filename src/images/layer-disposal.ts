import { messageOf } from '../base/errors.ts'
import { Retries } from '../base/retries.ts'
import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'
import { namedDirs } from './layer-dirs.ts'
import type { LayerSnapshots } from './layers.ts'

type Options = {
  readonly db: Database
  readonly snapshots: Pick<LayerSnapshots, 'discard' | 'layerPath'>
  readonly log: Log
  /** ms to the second try; as `Retries` has it unless given. */
  readonly firstMs?: number
}

/**
 * Gets rid of directories that nobody needs any more. One that cannot be moved away is no reason for what was done
 * beside it to fail: it is tried again until it is gone.
 */
export class LayerDisposal {
  readonly #options: Options
  readonly #retries: Retries

  constructor(options: Options) {
    this.#options = options
    this.#retries = new Retries(options)
  }

  /** Of the staging directory, where no name is given twice. */
  discardStaged(path: string): void {
    this.#discard(path, () => true)
  }

  /** No row names it. A later try leaves it alone if one does by then. */
  discardLayer(dir: string): void {
    const { db, snapshots } = this.#options
    this.#discard(snapshots.layerPath(dir), () => !namedDirs(db).has(dir))
  }

  close(): void {
    this.#retries.close()
  }

  #discard(path: string, isStray: () => boolean): void {
    const { snapshots, log } = this.#options
    try {
      snapshots.discard(path)
    } catch (error) {
      log.warn({ path, error: messageOf(error) }, 'a directory of a layer is left on disk for now')
      this.#retries.later(`deleting ${path}`, async () => {
        if (isStray()) snapshots.discard(path)
      })
    }
  }
}
