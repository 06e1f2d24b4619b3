import { chownSync, existsSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { effect, effectSync } from '../base/effects.ts'
import { messageOf } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import { Retries } from '../base/retries.ts'
import type { IdMapping } from '../model/security.ts'
import type { Log } from '../observe/log.ts'
import { ensureDir, fsyncDir, namesIn, openDirectory, syncFileSystem } from '../os/files.ts'
import { isMountPoint, mountMapped, mountOverlay, unmountAll } from '../os/mounts.ts'
import { copyMetadata } from './copy-object.ts'
import { finishLayer } from './finish-layer.ts'
import { LayerStack } from './layer-stack.ts'
import { checkSeal, sealLayer } from './seal-layer.ts'
import type {
  LayerSeal,
  MappedIds,
  MountOptions,
  Snapshots,
  UnpackedLayer,
  UnpackLimits,
} from './snapshots.ts'
import { Trash } from './trash.ts'
import { UnpackPool } from './unpack-pool.ts'
import { recordOf } from './unpack-protocol.ts'

export type SnapshotOptions = {
  /** Survives a reboot. `layers/`, `records/`, `staging/`, `trash/`, `rootfs/` and `empty/` in it are ours. */
  readonly root: string
  /** Processes that unpack layers, one layer each at a time. */
  readonly workers: number
  /** Absolute path of a program that decompresses gzip (`-d -c`); '': the workers do it themselves. */
  readonly gzipProgram: string
  readonly log: Log
  /** For who only looks: no directory is made. */
  readonly isReadOnly?: boolean
}

/** Makes the directories it needs below `root`, closed to everybody but root whatever their mode was. */
export function createSnapshots(options: SnapshotOptions): Snapshots {
  return new OverlaySnapshots(options)
}

class OverlaySnapshots implements Snapshots {
  readonly #layers: string
  readonly #records: string
  readonly #staging: string
  readonly #rootfs: string
  /** Layers with nothing in them, for overlays that would have too few; a read-only one takes two different ones. */
  readonly #empty: readonly string[]
  readonly #pool: UnpackPool
  readonly #trash: Trash
  readonly #retries: Retries
  readonly #trashDir: string
  readonly #log: Log
  /** No name is given twice, by no daemon: what one has left may be deleted at any time. */
  readonly #run = newId().slice(0, 12)
  #stagings = 0

  constructor({ root, workers, gzipProgram, log, isReadOnly = false }: SnapshotOptions) {
    this.#layers = join(root, 'layers')
    this.#records = join(root, 'records')
    this.#staging = join(root, 'staging')
    this.#rootfs = join(root, 'rootfs')
    this.#empty = ['0', '1'].map(name => join(root, 'empty', name))
    const trash = join(root, 'trash')
    this.#trashDir = trash
    this.#log = log
    if (!isReadOnly) this.makeDirectories()
    this.#pool = new UnpackPool(workers, gzipProgram, warning =>
      log.warn({ warning }, 'layer unpacked incompletely'),
    )
    this.#trash = new Trash(trash, log)
    this.#retries = new Retries({ log })
  }

  directories(): string[] {
    return [this.#layers, this.#records, this.#staging, this.#trashDir, this.#rootfs, ...this.#empty]
  }

  makeDirectories(): void {
    // Programs in an image may be set-user-id: nobody else gets through to them. The root of a user namespace has
    // to pass on the way to its own root file system, and only to that (`#makeHome`).
    for (const dir of [this.#layers, this.#records, this.#staging, this.#trashDir]) ensureDir(dir, 0o700)
    for (const dir of [dirname(this.#rootfs), this.#rootfs]) ensureDir(dir, 0o711)
    for (const dir of this.#empty) ensureDir(dir, 0o755)
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
    return effect('storage', 'unpack', staging, () => this.#pool.run({ staging, limits }, source, signal))
  }

  async finishLayer(staging: string, layer: UnpackedLayer, below: readonly string[]): Promise<LayerSeal> {
    await finishLayer(staging, layer, below)
    return sealLayer(staging, recordOf(staging), layer, below.length > 0)
  }

  async publishLayers(
    layers: ReadonlyArray<{ readonly staging: string; readonly dir: string }>,
  ): Promise<void> {
    await syncFileSystem(this.#staging)
    for (const { staging, dir } of layers) {
      effectSync('storage', 'rename-record', dir, () => renameSync(recordOf(staging), this.recordPath(dir)))
      effectSync('storage', 'rename-layer', dir, () => renameSync(staging, this.layerPath(dir)))
    }
    effectSync('storage', 'sync-layers', this.#layers, () => {
      fsyncDir(this.#records)
      fsyncDir(this.#layers)
    })
  }

  checkLayer(dir: string, seal: LayerSeal | undefined): string | undefined {
    return checkSeal(this.layerPath(dir), seal)
  }

  stagingPath(key: string): string {
    return join(this.#staging, `${key.replace(/[^\w.-]/g, '_')}.${this.#run}-${++this.#stagings}`)
  }

  stagedPath(name: string): string {
    return join(this.#staging, name)
  }

  layerPath(dir: string): string {
    return join(this.#layers, dir)
  }

  recordPath(dir: string): string {
    return join(this.#records, dir)
  }

  listLayerDirs(): string[] {
    return namesIn(this.#layers)
  }

  listRecords(): string[] {
    return namesIn(this.#records)
  }

  listStaging(): string[] {
    return namesIn(this.#staging)
  }

  discard(path: string): void {
    const record = this.#recordOf(path)
    this.#trash.discard(path)
    if (record !== undefined) this.#trash.discard(record)
  }

  emptied(): Promise<string | undefined> {
    return this.#trash.emptied()
  }

  #recordOf(path: string): string | undefined {
    if (dirname(path) === this.#layers) return this.recordPath(basename(path))
    return dirname(path) === this.#staging ? recordOf(path) : undefined
  }

  mountRootfs(id: string, layers: readonly string[], { ids, label }: MountOptions = {}): string {
    const target = this.rootfsPath(id)
    if (isMountPoint(target)) return target
    const lowers = layers.length === 0 ? this.#empty.slice(0, 1) : layers
    const upper = this.upperPath(id)
    this.#makeHome(id, ids)
    if (!existsSync(upper)) this.#makeUpper(id, lowers, ids)
    const work = this.#path(id, 'work')
    // The kernel refuses one that a volatile overlay has used.
    effectSync('storage', 'remove-work', work, () => rmSync(work, { recursive: true, force: true }))
    ensureDir(work, 0o700)
    ensureDir(target, 0o700)
    this.#withMapped(id, lowers, ids, mapped =>
      mountOverlay({ lowers: mapped, upper, work, target, volatile: true, label }),
    )
    return target
  }

  /** Everything of one container; closed to all but root and the group that is root's in its user namespace. */
  #makeHome(id: string, ids: MappedIds | undefined): void {
    const home = this.#path(id)
    ensureDir(home, 0o700)
    if (ids !== undefined) openDirectory(home, ids.gid.hostId)
  }

  /**
   * The layers as they look in a user namespace. An overlay keeps what it was mounted from, so the mapped mounts are
   * gone again afterwards.
   */
  #withMapped(
    id: string,
    lowers: readonly string[],
    ids: MappedIds | undefined,
    mountOn: (lowers: readonly string[]) => void,
  ): void {
    if (ids === undefined) {
      mountOn(lowers)
      return
    }
    const targets = lowers.map((_, index) => this.#path(id, 'mapped', String(index)))
    try {
      lowers.forEach((lower, index) => {
        ensureDir(targets[index]!, 0o700)
        mountMapped(lower, targets[index]!, ids.namespace)
      })
      mountOn(targets)
    } finally {
      for (const target of targets) unmountAll(target)
    }
  }

  /** The root directory of the mount is that of `upper`, so it has to look like the image's. */
  #makeUpper(id: string, lowers: readonly string[], ids: MappedIds | undefined): void {
    const draft = this.#path(id, 'upper.new')
    ensureDir(draft, 0o755)
    effectSync('storage', 'make-upper', draft, () => {
      const root = new LayerStack(lowers).find('')!
      copyMetadata(root, Buffer.from(draft))
      if (ids !== undefined) chownSync(draft, hostId(root.stat.uid, ids.uid), hostId(root.stat.gid, ids.gid))
      renameSync(draft, this.upperPath(id))
    })
  }

  mountImageView(
    id: string,
    index: number,
    layers: readonly string[],
    { ids, label }: MountOptions = {},
  ): string {
    const target = this.#path(id, 'views', String(index))
    if (isMountPoint(target)) return target
    this.#makeHome(id, ids)
    ensureDir(target, 0o700)
    const lowers = layers.length < 2 ? [...layers, ...this.#empty].slice(0, 2) : layers
    this.#withMapped(id, lowers, ids, mapped =>
      mountOverlay({ lowers: mapped, target, readonly: true, label }),
    )
    return target
  }

  unmountRootfs(id: string): void {
    for (const target of [...this.#below(id, 'views'), ...this.#below(id, 'mapped')]) unmountAll(target)
    unmountAll(this.rootfsPath(id))
  }

  #below(id: string, name: 'views' | 'mapped'): string[] {
    const dir = this.#path(id, name)
    return namesIn(dir).map(name => join(dir, name))
  }

  async removeRootfs(id: string): Promise<void> {
    this.unmountRootfs(id)
    this.discard(this.#path(id))
  }

  listRootfs(): string[] {
    return namesIn(this.#rootfs)
  }

  rootfsPath(id: string): string {
    return this.#path(id, 'merged')
  }

  upperPath(id: string): string {
    return this.#path(id, 'upper')
  }

  #path(id: string, ...names: string[]): string {
    return join(this.#rootfs, id, ...names)
  }

  sweep(): void {
    const layers = new Set(this.listLayerDirs())
    const lone = this.listRecords().filter(name => !layers.has(name))
    for (const name of this.listStaging()) this.#sweepAway(this.stagedPath(name), () => true)
    for (const name of lone) {
      this.#sweepAway(this.recordPath(name), () => !existsSync(this.layerPath(name)))
    }
    this.#trash.sweep()
  }

  /** @param isLeft whether it is still of no use, should it have to be tried again */
  #sweepAway(path: string, isLeft: () => boolean): void {
    try {
      this.#trash.discard(path)
    } catch (error) {
      this.#log.error({ path, error: messageOf(error) }, 'what a pull has left could not be moved away')
      this.#retries.later(`deleting ${path}`, async () => {
        if (isLeft()) this.#trash.discard(path)
      })
    }
  }

  async close(): Promise<void> {
    this.#retries.close()
    await Promise.all([this.#pool.close(), this.#trash.close()])
  }
}

/** The kernel's answer for an id that a user namespace does not map. */
const OVERFLOW_ID = 65534

function hostId(id: number, { hostId: first, length }: IdMapping): number {
  return id < length ? first + id : OVERFLOW_ID
}
