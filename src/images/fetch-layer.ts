import { existsSync } from 'node:fs'
import type { Digest } from '../base/digest.ts'
import { isCode } from '../base/errors.ts'
import type { BlobStream, PartialBlob, Repository } from '../registry/registry.ts'
import type { UnpackedLayer, UnpackLimits } from '../storage/snapshots.ts'
import type { LayerSnapshots, PlannedLayer } from './layers.ts'

/** What is kept of a blob between two tries; see storage/partial-blobs.ts. */
export interface KeptBlob extends PartialBlob {
  keep(): Promise<void>
  drop(): Promise<void>
}

/** undefined where nothing is kept of this blob. */
export type OpenPartial = (digest: Digest) => KeptBlob | undefined

export type FetchOptions = {
  readonly snapshots: LayerSnapshots
  readonly limits: UnpackLimits
  readonly openPartial: OpenPartial
}

/** How far a layer is; bytes are compressed ones. */
export type FetchState = {
  readonly state: 'waiting' | 'downloading' | 'unpacking' | 'committing'
  /** Received, and handed to who unpacks them. */
  readonly bytes: number
  readonly unpacked: number
  /** What nothing happens without; '' while it is at work. */
  readonly waitsFor: '' | 'its turn' | 'a worker' | 'the network' | 'the layers below'
}

/** What it took to get a layer. */
export type LayerReport = {
  /** Bytes from the network, and from what an earlier try left. */
  readonly received: number
  readonly resumed: number
  readonly endpoint: string
  /** For the network. */
  readonly waitedMs: number
  /** When the last byte was there, and when all was unpacked: ms of the monotonic clock. */
  readonly downloadedAt: number
  readonly unpackedAt: number
}

/** The way of one layer from the registry into its staging directory. */
export class LayerFetch {
  readonly #options: FetchOptions
  readonly #layer: PlannedLayer
  readonly #staging: string
  #stream: BlobStream | undefined
  /** Bytes that the stream has given out, or holds for whoever reads it. */
  #offset = 0
  #downloadedAt = 0
  #unpackedAt = 0
  #partial: KeptBlob | undefined

  constructor(options: FetchOptions, layer: PlannedLayer, staging: string) {
    this.#options = options
    this.#layer = layer
    this.#staging = staging
  }

  get state(): FetchState {
    const total = this.#layer.blob.size
    if (this.#unpackedAt > 0) {
      return { state: 'committing', bytes: total, unpacked: total, waitsFor: 'the layers below' }
    }
    const stream = this.#stream
    if (stream === undefined) return { state: 'waiting', bytes: 0, unpacked: 0, waitsFor: 'its turn' }
    const { received, resumed, isWaiting } = stream.traffic
    const bytes = Math.min(total, received + resumed)
    const unpacked = this.#offset - stream.readableLength
    const waits = isWaiting && stream.readableLength === 0 ? 'the network' : ''
    const waitsFor = stream.readableDidRead || waits !== '' ? waits : 'a worker'
    return { state: bytes < total ? 'downloading' : 'unpacking', bytes, unpacked, waitsFor }
  }

  get report(): LayerReport {
    const { received = 0, resumed = 0, endpoint = '', waitedMs = 0 } = this.#stream?.traffic ?? {}
    return {
      received,
      resumed,
      endpoint,
      waitedMs,
      downloadedAt: this.#downloadedAt,
      unpackedAt: this.#unpackedAt,
    }
  }

  /**
   * Downloads, unpacks and verifies. What an earlier try left of the blob is used; if the content is not right with it,
   * once more without.
   */
  async run(repository: Pick<Repository, 'openBlob'>, signal: AbortSignal): Promise<UnpackedLayer> {
    this.#partial = this.#options.openPartial(this.#layer.blob.digest)
    try {
      return await this.#attempt(repository, signal)
    } catch (error) {
      const isOurs = this.#stream?.hasFailed === false && !signal.aborted
      // The network failed, or nobody waits any more: what came is good.
      if (!isOurs) throw error
      await this.#partial?.drop()
      this.#partial = undefined
      if (this.report.resumed === 0 || isCode(error, 'exhausted')) throw error
      if (existsSync(this.#staging)) this.#options.snapshots.discard(this.#staging)
      return await this.#attempt(repository, signal)
    }
  }

  /** Once the layer is committed, or given up. */
  async end(isCommitted: boolean): Promise<void> {
    await (isCommitted ? this.#partial?.drop() : this.#partial?.keep())
  }

  async #attempt(repository: Pick<Repository, 'openBlob'>, signal: AbortSignal): Promise<UnpackedLayer> {
    const { snapshots, limits } = this.#options
    const { blob, diffId } = this.#layer
    this.#offset = 0
    const onBytes = (total: number) => {
      this.#offset = total
      if (total === blob.size) this.#downloadedAt = performance.now()
    }
    const stream = repository.openBlob(blob, signal, { onBytes, partial: this.#partial })
    this.#stream = stream
    // The request is under way, and small layers are here, by the time that a worker is free.
    stream.read(0)
    const unpacked = await snapshots.unpack(stream, this.#staging, limits, signal)
    if (unpacked.blobDigest !== blob.digest || unpacked.blobSize !== blob.size) {
      throw new Error(
        `the content received has digest ${unpacked.blobDigest} and ${unpacked.blobSize} bytes; expected ${blob.size}`,
      )
    }
    if (unpacked.diffId !== diffId) {
      throw new Error(
        `the uncompressed content has digest ${unpacked.diffId} instead of the ${diffId} that the image's configuration says`,
      )
    }
    this.#unpackedAt = performance.now()
    return unpacked
  }
}
