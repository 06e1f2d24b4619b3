import type { Readable } from 'node:stream'
import type { Digest } from '../base/digest.ts'
import type { Credentials } from './credentials.ts'
import type { Descriptor } from './manifest.ts'
import type { Reference } from './reference.ts'

export type ResolvedManifest = {
  /** What the reference resolved to: the index's digest if it is an index. */
  readonly digest: Digest
  /** The image manifest for this platform. */
  readonly manifestDigest: Digest
  readonly manifestBytes: Buffer
  readonly mediaType: string
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
  /** `host[:port]` that gave it: the registry's own, or a mirror's. */
  readonly endpoint: string
}

/** Where bytes of a download that may be broken off are kept for the next one. */
export interface PartialBlob {
  /** What an earlier one left: the bytes from `start` to before `end`. */
  readonly start: number
  readonly end: number
  /** From `offset` on, which lies before `end`. */
  read(offset: number): AsyncIterable<Buffer>
  /**
   * Bytes that came from the network, in order. Never fails.
   * @param waitedMs how long the download has waited for the network so far
   */
  write(offset: number, chunk: Buffer, waitedMs: number): Promise<void> | undefined
}

/** How a download goes; grows with it. */
export type BlobTraffic = {
  /** Bytes from the network, and from what an earlier download left. */
  readonly received: number
  readonly resumed: number
  /** How long the reader has waited for the network. */
  readonly waitedMs: number
  /** It waits now. */
  readonly isWaiting: boolean
  /** `host[:port]` that the bytes come from; '' before the first. */
  readonly endpoint: string
}

export type BlobStream = Readable & {
  readonly traffic: BlobTraffic
  /** The download failed, or its caller left: not merely that a reader who had enough dropped the stream. */
  readonly hasFailed: boolean
}

export type BlobOptions = {
  /** Told how many bytes have been handed on so far. */
  readonly onBytes?: ((total: number) => void) | undefined
  readonly partial?: PartialBlob | undefined
}

/** A signature as cosign attaches it to an image: unverified. */
export type AttachedSignature = {
  /** The document that was signed. */
  readonly payload: Buffer
  /** base64 */
  readonly signature: string
}

/**
 * One pull's view of a repository: its endpoints in order, each with its own authentication. An
 * endpoint that fails is left for the next; the final error names every one with its cause.
 */
export interface Repository {
  /**
   * Manifest or index by tag or digest, down to the image manifest of this node's platform.
   *
   * @throws BerthError `not-found`; `unknown`, starting with `RegistryUnavailable: ` when no endpoint answered;
   * `cancelled`
   */
  resolve(signal: AbortSignal): Promise<ResolvedManifest>
  /**
   * What is attached to a manifest as its cosign signatures (tag `sha256-<hex>.sig`), from the endpoint that had the
   * manifest or one behind it. None if no endpoint has any.
   *
   * @throws BerthError like `resolve`, if an endpoint might have some but did not answer, or answered nonsense
   */
  signatures(manifest: Digest, signal: AbortSignal): Promise<readonly AttachedSignature[]>
  /** A small blob (the configuration), verified against size and digest. */
  readBlob(descriptor: Descriptor, maxBytes: number, signal: AbortSignal): Promise<Buffer>
  /**
   * A layer's bytes in order, asked for when the stream is first read. Large blobs come in parts, several at once while
   * the reader waits for bytes. A connection that breaks is resumed by Range at its offset; the stream errors when the
   * bytes are more or fewer than the descriptor's size. The digest is the reader's to check.
   */
  openBlob(descriptor: Descriptor, signal: AbortSignal, options?: BlobOptions): BlobStream
}

export interface Registry {
  /**
   * What a name means, most likely first: itself if it is a full one, else by the aliases and search list of
   * registries.conf (default docker.io).
   *
   * @throws BerthError invalid
   */
  candidates(name: string): readonly Reference[]

  /**
   * @param credentials of the request; without them, or for hosts they don't name, the node's own are looked for
   * @param namespace of the pod that the image is for, '' if it is for none; it may have an auth file for this pull
   * @throws BerthError unknown if a configuration or auth file cannot be understood, or blocks the registry
   */
  repository(reference: Reference, credentials: Credentials | undefined, namespace?: string): Repository

  /**
   * The auth file that waits for a pull of this name for a pod of this namespace, '' if there is none: such a pull is
   * nobody else's.
   *
   * @throws BerthError invalid
   */
  namespaceAuthFile(name: string, namespace: string): string

  /** Breaks off what is running. */
  close(): Promise<void>
}
