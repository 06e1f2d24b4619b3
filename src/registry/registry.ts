import type { Readable } from 'node:stream'
import type { Digest } from '../base/digest.ts'
import type { OciDescriptor } from '../model/oci.ts'
import type { Reference } from './reference.ts'

/** Credentials of one pull (CRI AuthConfig). Never logged: has no enumerable secret, prints as `[credentials]`. */
export type { Credentials } from './credentials.ts'

export type ResolvedManifest = {
  /** What the reference resolved to: the index's digest if it is an index. */
  readonly digest: Digest
  /** The image manifest for this platform. */
  readonly manifestDigest: Digest
  readonly manifestBytes: Buffer
  readonly mediaType: string
  readonly config: OciDescriptor
  readonly layers: readonly OciDescriptor[]
}

/**
 * One pull's view of a repository: the endpoints of registries.conf in order, each with its own authentication. An
 * endpoint that fails is left for the next; the final error names every one with its cause.
 */
export interface Repository {
  /** Manifest or index by tag or digest, down to the image manifest of this node's platform. */
  resolve(signal: AbortSignal): Promise<ResolvedManifest>
  /** A small blob (the configuration), verified against size and digest. */
  readBlob(descriptor: OciDescriptor, maxBytes: number, signal: AbortSignal): Promise<Buffer>
  /**
   * A layer's bytes in order. A connection that breaks is resumed by Range at its offset; the stream errors when
   * the bytes are more or fewer than the descriptor's size. The digest is the reader's to check.
   */
  openBlob(
    descriptor: OciDescriptor,
    signal: AbortSignal,
    onBytes?: (total: number) => void,
  ): Promise<Readable>
}

export interface Registry {
  repository(
    reference: Reference,
    credentials: import('./credentials.ts').Credentials | undefined,
  ): Repository
  close(): Promise<void>
}
