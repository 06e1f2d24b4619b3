import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { effectSync } from '../base/effects.ts'
import { errnoOf, messageOf } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Log } from '../observe/log.ts'
import { ensureDir, fsyncDir, removeTree, syncFileSystem } from '../os/files.ts'
import {
  bindMount,
  isMountPoint,
  makePrivateMountPoint,
  mountOverlay,
  unmount,
  unmountAll,
} from '../os/mounts.ts'
import { completeLayer } from './commit-layer.ts'
import type { Snapshots, UnpackedLayer, UnpackLimits } from './snapshots.ts'
import { UnpackPool } from './unpack-pool.ts'

export type SnapshotOptions = {
  /** Persistent directory on a file system that overlayfs accepts as upper; others may use it too. */
  readonly root: string
  /** Processes that unpack. */
  readonly workers: number
  readonly log: Log
}

/** Deleting is disk work that nobody waits for. */
const DELETERS = 2

/** Layers and root file systems as overlay directories: `storage/{layers,staging,trash,rootfs}` below the root. */
export function createSnapshots(options: SnapshotOptions): Snapshots {
  return new OverlaySnapshots(options)
}

class OverlaySnapshots implements Snapshots {
  readonly #root: string
  readonly #layers: string
  readonly #staging: string
  readonly #trash: string
  readonly #roots: string
  readonly #log: Log
  readonly #pool: UnpackPool
  readonly #deleters = new Semaphore('deletion', DELETERS)
  readonly #deleting = new Set<Promise<void>>()

  constructor({ root, workers, log }: SnapshotOptions) {
    this.#root = join(root, 'storage')
    this.#layers = join(this.#root, 'layers')
    this.#staging = join(this.#root, 'staging')
    this.#trash = join(this.#root, 'trash')
    this.#roots = join(this.#root, 'rootfs')
    this.#log = log
    this.#pool = new UnpackPool(workers, message => log.warn({}, message))
    // Images hold setuid programs: nobody else may come near (CVE-2021-41103), whoever made the directory before.
    ensureDir(this.#root, 0o700)
    // A mount that spread into other mount namespaces would stay busy there after it is gone here. One mount for all
    // four: between two nothing could be renamed.
    makePrivateMountPoint(this.#root)
    for (const directory of [this.#layers, this.#staging, this.#trash, this.#roots])
      ensureDir(directory, 0o700)
  }

  prepare(): void {
    this.#pool.prepare()
  }

  unpack(
    source: Readable,
    staging: string,
    limits: UnpackLimits,
    signal: AbortSignal,
  ): Promise<UnpackedLayer> {
    return this.#pool.run({ staging, limits }, source, signal)
  }

  async commitLayer(
    staging: string,
    layer: UnpackedLayer,
    below: readonly string[],
    dir: string,
  ): Promise<void> {
    const path = this.layerPath(dir)
    effectSync('storage', 'complete-layer', staging, () => completeLayer(staging, layer, below))
    // Before the name: a layer that is visible is whole, also after a power cut.
    await syncFileSystem(staging)
    effectSync('storage', 'publish-layer', path, () => renameSync(staging, path))
    fsyncDir(this.#layers)
  }

  stagingPath(key: string): string {
    return join(this.#staging, key.replace(/[^A-Za-z0-9.-]/g, '-'))
  }

  layerPath(dir: string): string {
    return join(this.#layers, dir)
  }

  listLayerDirs(): string[] {
    return readdirSync(this.#layers)
  }

  discard(path: string): void {
    const trash = join(this.#trash, randomUUID())
    try {
      effectSync('storage', 'discard', path, () => renameSync(path, trash))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return
      throw error
    }
    this.#delete(trash)
  }

  mountRootfs(id: string, layers: readonly string[]): string {
    const merged = this.rootfsPath(id)
    if (isMountPoint(merged)) return merged
    const work = join(this.#roots, id, 'work')
    // What a volatile mount leaves in its work directory forbids the next one.
    rmSync(work, { recursive: true, force: true })
    for (const directory of [join(this.#roots, id), work]) ensureDir(directory, 0o700)
    for (const directory of [this.upperPath(id), merged]) ensureDir(directory, 0o755)
    mountOverlay({
      lowers: layers.length > 0 ? layers : [this.#emptyLower(id)],
      upper: this.upperPath(id),
      work,
      target: merged,
      // A reboot ends every container, and with it the use of this layer: syncing it would be for nobody.
      volatile: true,
    })
    return merged
  }

  unmountRootfs(id: string): void {
    unmount(this.rootfsPath(id), { detach: true })
    const views = join(this.#roots, id, 'views')
    if (!existsSync(views)) return
    for (const view of readdirSync(views)) unmount(join(views, view), { detach: true })
  }

  async removeRootfs(id: string): Promise<void> {
    const directory = join(this.#roots, id)
    if (!existsSync(directory)) return
    this.unmountRootfs(id)
    this.discard(directory)
  }

  listRootfs(): string[] {
    return readdirSync(this.#roots)
  }

  rootfsPath(id: string): string {
    return join(this.#roots, id, 'merged')
  }

  upperPath(id: string): string {
    return join(this.#roots, id, 'upper')
  }

  mountImageView(id: string, index: number, layers: readonly string[]): string {
    const view = join(this.#roots, id, 'views', String(index))
    if (isMountPoint(view)) return view
    for (const directory of [join(this.#roots, id), join(this.#roots, id, 'views'), view])
      ensureDir(directory, 0o700)
    const [only, ...more] = layers.length > 0 ? layers : [this.#emptyLower(id)]
    // An overlay without an upper needs two layers.
    if (more.length === 0) bindMount(only!, view, { readonly: true })
    else mountOverlay({ lowers: layers, target: view, readonly: true })
    return view
  }

  async sweep(): Promise<void> {
    for (const name of readdirSync(this.#staging)) this.discard(join(this.#staging, name))
    for (const name of readdirSync(this.#trash)) this.#delete(join(this.#trash, name))
  }

  async close(): Promise<void> {
    await this.#pool.close()
    await Promise.all(this.#deleting)
    if (this.listRootfs().length === 0) unmountAll(this.#root)
  }

  /** For an image without layers. */
  #emptyLower(id: string): string {
    const empty = join(this.#roots, id, 'empty')
    mkdirSync(empty, { recursive: true, mode: 0o755 })
    return empty
  }

  /** In the background. What fails is tried again by the sweep of the next start. */
  #delete(trash: string): void {
    const deletion = this.#deleters
      .run(() => removeTree(trash))
      .catch(error =>
        this.#log.warn({ path: trash, error: messageOf(error) }, 'a discarded directory stays for now'),
      )
      .finally(() => this.#deleting.delete(deletion))
    this.#deleting.add(deletion)
  }
}
