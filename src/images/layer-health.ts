import type { Digest } from '../base/digest.ts'
import type { Layer } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Database } from '../state/database.ts'

/**
 * Which layers are known to be damaged, and the images that cannot be used because of them. Those are not listed any
 * more, so that whoever wants one pulls it again, which brings back the layer; their rows and names stay.
 */
export class LayerHealth {
  readonly #db: Database
  readonly #log: Log
  #broken: ReadonlyMap<Digest, string>

  constructor(db: Database, log: Log) {
    this.#db = db
    this.#log = log
    this.#broken = brokenImages(db)
  }

  /** What is wrong with an image, undefined if it can be used. */
  damageOf(imageId: Digest): string | undefined {
    return this.#broken.get(imageId)
  }

  /** Nothing happens if the layer was replaced or deleted meanwhile: that was about its old directory. */
  report(layer: Layer, damage: string): void {
    if (layer.damage === damage || !this.#isCurrent(layer)) return
    this.#db.transact('layer damaged', tx => tx.layers.setDamage(layer.chainId, damage))
    this.#broken = brokenImages(this.#db)
    this.#log.error(
      {
        layer: layer.chainId,
        directory: layer.dir,
        images: this.#db.read.layers.imagesOn(layer.chainId),
        damage,
      },
      'a layer on disk is damaged; the next pull of its images, or "berth image verify --repair", fetches it again',
    )
  }

  /** It was compared with its record and is whole. */
  verified(layer: Layer, time: bigint): void {
    if (!this.#isCurrent(layer)) return
    this.#db.transact('layer verified', tx => tx.layers.setVerified(layer.chainId, time))
    if (layer.damage !== undefined) this.#broken = brokenImages(this.#db)
  }

  #isCurrent({ chainId, dir }: Layer): boolean {
    return this.#db.read.layers.get(chainId)?.dir === dir
  }

  /** It was fetched again. */
  replaced(chainId: Digest): void {
    this.#broken = brokenImages(this.#db)
    this.#log.info({ layer: chainId }, 'a damaged layer was replaced')
  }
}

/** What is wrong with the images on a damaged layer. */
export function imageDamage({ diffId }: Layer, damage: string): string {
  return `its layer ${diffId} is damaged: ${damage}`
}

function brokenImages(db: Database): ReadonlyMap<Digest, string> {
  const { layers } = db.read
  return new Map(
    layers.damaged().flatMap(layer => {
      const damage = imageDamage(layer, layer.damage ?? '')
      return layers.imagesOn(layer.chainId).map(id => [id, damage] as const)
    }),
  )
}
