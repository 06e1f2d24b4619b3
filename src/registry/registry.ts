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
   * A layer's bytes in order. A connection that breaks is resumed by Range at its offset; the stream errors when
   * the bytes are more or fewer than the descriptor's size. The digest is the reader's to check.
   */
  openBlob(descriptor: Descriptor, signal: AbortSignal, onBytes?: (total: number) => void): Promise<Readable>
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
