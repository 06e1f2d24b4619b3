import { BerthError, notFound } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Difference } from '../model/difference.ts'
import type { Image, Layer } from '../model/image.ts'
import type { ManifestRow } from '../state/images.ts'
import { type CollectedGarbage, collectImages } from './collect-images.ts'
import { imageDifferences } from './differences.ts'
import { type Explanation, explainImage } from './explain-image.ts'
import { type ExportEvent, exportImages } from './export-images.ts'
import type { ImageContext } from './image-context.ts'
import { type ImportEvent, importImages } from './import-images.ts'
import { type RemovedImages, removeImages, tagImage } from './name-images.ts'
import { type VerifyEvent, verifyImages } from './verify-images.ts'

/** An image as operators see it. */
export type StoredImage = {
  readonly image: Image
  /** Bytes of its layers on disk, shared ones in full. */
  readonly disk: number
  /** ns since 1970; 0n: never. */
  readonly usedAt: bigint
  /** Ids of the containers that stand on it. */
  readonly containers: readonly string[]
  /** Why it cannot be used. */
  readonly damage: string | undefined
}

export type InspectedImage = StoredImage & {
  readonly config: Buffer
  readonly manifests: readonly ManifestRow[]
  /** Lowest first. */
  readonly layers: readonly Layer[]
}

/**
 * Imports, exports and checks at once. Each has a process that may hold a gigabyte for a large image, and all of them
 * read and write the same disk: more at once only makes each slower.
 */
const MAX_PARALLEL = 2

/** Those that wait for their turn: as many as somebody starts by hand or from a script by mistake. */
const MAX_WAITING = 16

/** What operators do with images, beyond what kubelet does. */
export class ImageAdmin {
  readonly #context: ImageContext
  readonly #turns = new Semaphore('imports, exports and checks of images', MAX_PARALLEL, MAX_WAITING)

  constructor(context: ImageContext) {
    this.#context = context
  }

  /** '' lists all, oldest first. */
  list(reference: string): StoredImage[] {
    if (reference === '') return this.#context.index.all().map(image => this.#stored(image))
    const image = this.#context.find(reference)
    return image === undefined ? [] : [this.#stored(image)]
  }

  /** @throws BerthError not-found */
  inspect(reference: string): InspectedImage {
    const image = this.#require(reference)
    const { images } = this.#context.db.read
    return {
      ...this.#stored(image),
      config: images.rawConfig(image.id) ?? Buffer.alloc(0),
      manifests: images.manifests(image.id),
      layers: this.#chainOf(image).reverse(),
    }
  }

  /** @returns the name as it is recorded */
  tag(reference: string, name: string): string {
    return tagImage(this.#context, this.#require(reference), name)
  }

  remove(references: readonly string[], namesOnly: boolean): Promise<RemovedImages> {
    return removeImages(this.#context, references, namesOnly)
  }

  /** See verifyImages. Without a reference all layers, also those of no image. */
  async *verify(
    references: readonly string[],
    repair: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<VerifyEvent> {
    const images = references.map(reference => this.#require(reference))
    const until = this.#untilClosing(signal)
    yield* this.#inTurn(until, () => verifyImages(this.#context, images, repair, until))
  }

  /** See imageDifferences. */
  differences(isServing: boolean): Difference[] {
    return imageDifferences(this.#context, isServing)
  }

  /** See collectImages. */
  collect(prune: boolean, dryRun: boolean): CollectedGarbage {
    return collectImages(this.#context, prune, dryRun)
  }

  /** See explainImage. */
  why(reference: string): Explanation {
    return explainImage(this.#context, reference)
  }

  /** See importImages. */
  async *import(
    source: AsyncIterable<Buffer>,
    tag: string,
    signal: AbortSignal,
  ): AsyncGenerator<ImportEvent> {
    const until = this.#untilClosing(signal)
    yield* this.#inTurn(until, () => importImages(this.#context, source, tag, until))
  }

  /** See exportImages. */
  async *export(references: readonly string[], signal: AbortSignal): AsyncGenerator<ExportEvent> {
    const requests = references.map(reference => ({ reference, image: this.#require(reference) }))
    const until = this.#untilClosing(signal)
    yield* this.#inTurn(until, () => exportImages(this.#context, requests, until))
  }

  async *#inTurn<T>(signal: AbortSignal, work: () => AsyncGenerator<T>): AsyncGenerator<T> {
    using _ = await this.#turns.enter(signal)
    yield* work()
  }

  #require(reference: string): Image {
    const image = this.#context.find(reference)
    if (image === undefined) throw notFound('image', reference)
    return image
  }

  #stored(image: Image): StoredImage {
    const { db, health } = this.#context
    const chain = this.#chainOf(image)
    return {
      image,
      disk: chain.reduce((sum, layer) => sum + layer.size, 0),
      usedAt: db.read.images.usedAt(image.id),
      containers: db.read.images.containersOf(image.id),
      damage: health.damageOf(image.id),
    }
  }

  /** Topmost first. */
  #chainOf({ topLayer }: Image): Layer[] {
    return topLayer === undefined ? [] : this.#context.db.read.layers.chain(topLayer)
  }

  #untilClosing(signal: AbortSignal): AbortSignal {
    if (this.#context.closing.aborted) throw new BerthError('unavailable', 'the daemon is stopping')
    return AbortSignal.any([signal, this.#context.closing])
  }
}
