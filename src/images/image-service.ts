import { dirname } from 'node:path'
import { nowNs } from '../base/clock.ts'
import { type Digest, isDigest } from '../base/digest.ts'
import { BerthError, isCode, notFound } from '../base/errors.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { Image } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { FileSystemUsage } from '../os/files.ts'
import type { Credentials } from '../registry/credentials.ts'
import { nodePlatform, type Platform } from '../registry/platform.ts'
import type { Registry } from '../registry/registry.ts'
import type { Database } from '../state/database.ts'
import type { UnpackLimits } from '../storage/snapshots.ts'
import type { ImageGcRules } from './collect-images.ts'
import { collectLayers, type Garbage } from './collect-layers.ts'
import { CollectSchedule } from './collect-schedule.ts'
import type { KeptBlob } from './fetch-layer.ts'
import { ImageAdmin } from './image-admin.ts'
import type { ImageContext } from './image-context.ts'
import { ImageIndex } from './image-index.ts'
import { LayerDisposal } from './layer-disposal.ts'
import { LayerHealth } from './layer-health.ts'
import { LayerLeases } from './layer-leases.ts'
import { LayerStore } from './layer-store.ts'
import type { LayerSnapshots } from './layers.ts'
import { pinnedBy } from './pinned-names.ts'
import { admitImage } from './policy/admit-image.ts'
import type { Policies } from './policy/policies.ts'
import { preloadImages } from './preload-images.ts'
import { type PulledImage, type PullObserver, type PullRequest, pullImage } from './pull-image.ts'
import { type PullPlan, type PullProgress, reportProgress } from './pull-progress.ts'
import { recoverLayers } from './recover-layers.ts'

export type ImageServiceOptions = {
  readonly db: Database
  readonly registry: Registry
  /** Which images may be pulled. */
  readonly policies: Policies
  readonly snapshots: LayerSnapshots
  readonly log: Log
  readonly limits: UnpackLimits
  /** Layers of one pull that are fetched at the same time, and of all pulls. */
  readonly maxParallelDownloads: number
  readonly maxNodeDownloads: number
  /** What is kept of downloads that are broken off; by default nothing. */
  readonly partials?: PartialBlobs
  readonly observer?: ImageObserver
  /** Names that kubelet must not collect: whole ones, `start*` or `*part*`. */
  readonly pinnedImages: readonly string[]
  readonly gc: ImageGcRules
  /** Default: statfs(2). */
  readonly diskUsage?: (path: string) => FileSystemUsage
  /** Directory of archives that are imported after the start. */
  readonly preloadDir?: string
  /** Default: what containers on this node run. */
  readonly platform?: Platform
}

/** Told of what pulls do, for the metrics. */
export type ImageObserver = PullObserver & {
  onDownload(networkBytes: number, keptBytes: number): void
}

/** See storage/partial-blobs.ts. */
export type PartialBlobs = {
  open(digest: Digest): KeptBlob | undefined
  usage(): number
  sweep(): void
}

type RunningPull = { plan?: PullPlan }

/** The images of the node. Reads are answered from memory. */
export class ImageService {
  readonly #options: ImageServiceOptions
  readonly #platform: Platform
  readonly #leases = new LayerLeases()
  readonly #index: ImageIndex
  readonly #health: LayerHealth
  readonly #disposal: LayerDisposal
  readonly #layers: LayerStore
  readonly #pulls = new SingleFlight<PulledImage>('last-waiter')
  readonly #running = new Map<string, RunningPull>()
  readonly #closing = new AbortController()
  #preloading: Promise<void> | undefined
  readonly #context: ImageContext
  readonly #schedule: CollectSchedule
  /** What operators ask for. */
  readonly admin: ImageAdmin

  constructor(options: ImageServiceOptions) {
    const { db, pinnedImages, partials, observer } = options
    this.#options = options
    this.#platform = options.platform ?? nodePlatform()
    this.#index = new ImageIndex(db.read.images.all(), pinnedBy(pinnedImages))
    this.#health = new LayerHealth(db, options.log)
    this.#disposal = new LayerDisposal(options)
    this.#layers = new LayerStore({
      ...options,
      disposal: this.#disposal,
      leases: this.#leases,
      openPartial: digest => partials?.open(digest),
      onFetched: ({ received, resumed }) => observer?.onDownload(received, resumed),
      onReplaced: chainId => {
        this.#health.replaced(chainId)
        this.#schedule.soon()
      },
    })
    this.#context = {
      db,
      registry: options.registry,
      snapshots: options.snapshots,
      disposal: this.#disposal,
      log: options.log,
      platform: this.#platform,
      index: this.#index,
      layers: this.#layers,
      leases: this.#leases,
      health: this.#health,
      closing: this.#closing.signal,
      find: reference => this.find(reference),
      forget: images => this.#forget(images),
      collect: () => this.collect(),
      collectSoon: () => this.#schedule.soon(),
      maxArchiveBytes: options.limits.maxBytes,
    }
    this.#schedule = new CollectSchedule(this.#context, options.gc, options.diskUsage)
    this.admin = new ImageAdmin(this.#context)
  }

  /**
   * Who asks for the same name with the same credentials meanwhile gets the same outcome. When every caller has left,
   * the pull is broken off; what it has committed is kept a while for the next try.
   *
   * @param reference a name; short ones are looked up as registries.conf says
   * @param onProgress called at most ten times a second
   * @param namespace of the pod that the image is for: it may have a policy and credentials of its own
   * @returns the image's id
   * @throws BerthError invalid for a malformed name; not-found, unknown, cancelled
   */
  async pull(
    reference: string,
    credentials: Credentials | undefined,
    signal: AbortSignal,
    onProgress?: (progress: PullProgress) => void,
    namespace = '',
  ): Promise<Digest> {
    if (this.#closing.signal.aborted) throw stopping()
    const { registry, policies } = this.#options
    const key = JSON.stringify([
      reference,
      credentials?.server,
      credentials?.fingerprint,
      policies.ownFile(namespace),
      registry.namespaceAuthFile(reference, namespace),
    ])
    const request = { name: reference, credentials, namespace }
    const endReport =
      onProgress && reportProgress(this.#layers, () => this.#running.get(key)?.plan, onProgress)
    let pulled: PulledImage | undefined
    try {
      pulled = await this.#pulls.run(key, signal, inner => this.#pull(key, request, inner))
      return pulled.id
    } finally {
      endReport?.(pulled?.plan)
    }
  }

  /** '' lists all, oldest first; anything else at most the one image it means. */
  list(reference: string): Image[] {
    if (reference === '') return this.#index.all().filter(image => this.#isWhole(image))
    const image = this.resolve(reference)
    return image === undefined ? [] : [image]
  }

  status(reference: string): Image | undefined {
    return this.resolve(reference)
  }

  /**
   * What is here under an id (with or without `sha256:`), a name with or without tag or digest, or the beginning of
   * exactly one id. The same object for each of them, until the image's names change. Undefined for an image that
   * cannot be used: whoever wants it pulls it again, and that mends it.
   */
  resolve(reference: string): Image | undefined {
    const image = this.find(reference)
    return image !== undefined && this.#isWhole(image) ? image : undefined
  }

  /**
   * Whether a container of a namespace may stand on an image that is here.
   *
   * @param name as the pod names it; '' or an id: whatever it is called here
   * @throws BerthError unknown, starting with `SignatureValidationFailed: `
   */
  admit(image: Image, name: string, namespace: string): Promise<void> {
    return admitImage(this.#options, image, name, namespace)
  }

  /** @throws BerthError not-found, saying why */
  require(reference: string): Image {
    const image = this.find(reference)
    if (image === undefined) throw notFound('image', reference)
    const damage = this.#health.damageOf(image.id)
    if (damage === undefined) return image
    throw new BerthError('not-found', `image ${JSON.stringify(reference)} must be pulled again: ${damage}`)
  }

  /** As `resolve`, damaged images too. */
  find(reference: string): Image | undefined {
    const hex = reference.startsWith('sha256:') ? reference.slice('sha256:'.length) : reference
    const id = `sha256:${hex}`
    if (isDigest(id)) return this.#index.get(id)
    return this.#named(reference) ?? this.#index.withPrefix(hex)
  }

  /** Removes the image with all its names; unknown ones are no error. Containers keep what they stand on. */
  async remove(reference: string): Promise<void> {
    const image = this.find(reference)
    if (image === undefined) return
    this.#forget([image])
    this.#options.log.info({ imageId: image.id, names: image.repoTags }, 'image removed')
  }

  /** Details for tools; `config` is the registry's document. */
  inspect(
    reference: string,
  ): { readonly config: unknown; readonly chainId: string; readonly manifestDigest: string } | undefined {
    const image = this.resolve(reference)
    if (image === undefined) return undefined
    const { images } = this.#options.db.read
    return {
      config: JSON.parse(String(images.rawConfig(image.id))),
      chainId: image.topLayer ?? '',
      manifestDigest: images.manifests(image.id)[0]?.digest ?? '',
    }
  }

  /**
   * Absolute directories, topmost first, each of them looked at.
   * @throws BerthError precondition if one is not what it should be; the image is not listed any more then
   */
  layersOf(image: Image): string[] {
    const { db, snapshots } = this.#options
    const chain = image.topLayer === undefined ? [] : db.read.layers.chain(image.topLayer)
    for (const layer of chain) {
      const damage = this.#layers.damageOf(layer)
      if (damage === undefined) continue
      this.#health.report(layer, damage)
      throw new BerthError(
        'precondition',
        `image ${image.repoTags[0] ?? image.id} must be pulled again: its layer ${layer.diffId} is damaged: ${damage}`,
      )
    }
    return chain.map(layer => snapshots.layerPath(layer.dir))
  }

  /** Bytes and inodes of layers and partial downloads, and a directory on their file system; time in ns. */
  fsUsage(): {
    readonly timestamp: bigint
    readonly mountpoint: string
    readonly usedBytes: bigint
    readonly inodesUsed: bigint
  } {
    const { db, snapshots, partials } = this.#options
    const { size, inodes } = db.read.layers.totals()
    const kept = partials?.usage() ?? 0
    return {
      timestamp: nowNs(),
      mountpoint: dirname(snapshots.layerPath('0')),
      usedBytes: BigInt(size + kept),
      inodesUsed: BigInt(inodes),
    }
  }

  /** Deletes the layers that no image, container or pull needs; their files go in the background. */
  async collect(): Promise<void> {
    collectLayers(this.#context, this.#leases)
  }

  /** Something may have become garbage. In a moment, so that it is looked for once for many reasons. */
  collectSoon(): void {
    this.#schedule.soon()
  }

  /** Once, at start, before anything else. */
  async recover(): Promise<void> {
    this.#options.partials?.sweep()
    await recoverLayers(this.#context, this.#health)
    this.#schedule.begin()
    // What a pull had committed when the daemon ended: whoever wanted it will ask again.
    this.#schedule.keepForRetry(this.#options.db.read.layers.unused().map(layer => layer.chainId))
  }

  /** Deletes images if the configuration asks for that, and the file system is too full. */
  makeRoom(): Promise<void> {
    return this.#schedule.makeRoom()
  }

  /** Imports what is in `preloadDir`, in the background, once the daemon serves. */
  preload(): void {
    const { preloadDir } = this.#options
    if (preloadDir === undefined) return
    this.#preloading = preloadImages(this.#context, preloadDir, this.#closing.signal)
  }

  /** Breaks off the running pulls and waits until nothing of them is left. */
  async close(): Promise<void> {
    this.#closing.abort(stopping())
    this.#schedule.end()
    await this.#preloading
    await this.#pulls.settled()
    await this.#layers.settled()
    this.#disposal.close()
    this.#schedule.end()
  }

  async #pull(key: string, request: PullRequest, signal: AbortSignal): Promise<PulledImage> {
    const { db, registry, policies, log, observer } = this.#options
    const context = {
      db,
      registry,
      policies,
      log,
      observer,
      index: this.#index,
      layers: this.#layers,
      leases: this.#leases,
      platform: this.#platform,
      keepForRetry: (ids: readonly Digest[]) => this.#schedule.keepForRetry(ids),
    }
    const running: RunningPull = {}
    this.#running.set(key, running)
    try {
      const either = AbortSignal.any([signal, this.#closing.signal])
      return await pullImage(context, request, either, plan => {
        running.plan = plan
      })
    } catch (error) {
      throw this.#closing.signal.aborted ? stopping() : error
    } finally {
      this.#running.delete(key)
    }
  }

  #isWhole(image: Image): boolean {
    return this.#health.damageOf(image.id) === undefined
  }

  /** The first meaning of a name that is here. */
  #named(name: string): Image | undefined {
    try {
      for (const candidate of this.#options.registry.candidates(name)) {
        const image = this.#index.named(`${candidate}`)
        if (image !== undefined) return image
      }
    } catch (error) {
      if (!isCode(error, 'invalid')) throw error // registries.conf cannot be read
    }
    return undefined
  }

  #forget(images: readonly Image[]): Garbage {
    const { layers } = this.#options.db.read
    const chains = images.flatMap(({ topLayer }) => (topLayer === undefined ? [] : layers.chain(topLayer)))
    const garbage = collectLayers(this.#context, this.#leases, images)
    for (const { id } of images) this.#index.delete(id)
    this.#leases.unkeep(chains.map(({ chainId }) => chainId))
    return garbage
  }
}

function stopping(): BerthError {
  return new BerthError('unavailable', 'the daemon is stopping')
}
