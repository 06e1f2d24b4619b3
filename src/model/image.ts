import type { Digest } from '../base/digest.ts'

/** One node of an image's chain, unpacked: OCI image spec "Layer ChainID". */
export type Layer = {
  readonly chainId: Digest
  /** Digest of the uncompressed tar. */
  readonly diffId: Digest
  /** undefined for the lowest layer. */
  readonly parent?: Digest
  /** Directory below the layers directory: a short number, so that many fit in one mount option page. */
  readonly dir: string
  /** Bytes and inodes on disk, measured once. */
  readonly size: number
  readonly inodes: number
  /** Tells its directory from others; undefined if an earlier version unpacked it. */
  readonly seal: { readonly record: Digest; readonly mtime: bigint } | undefined
  /** What is wrong with its directory, found when it was looked at. It is fetched again by the next pull. */
  readonly damage: string | undefined
  /** When it was last compared with its record and found whole, ns since 1970; 0n: never. */
  readonly verifiedAt: bigint
  /** As it came. */
  readonly blobDigest: Digest
  readonly blobSize: number
}

/** The parts of an OCI image configuration that a runtime uses. Immutable: copied per container. */
export type ImageConfig = {
  readonly os: string
  readonly architecture: string
  readonly user: string
  readonly env: readonly string[]
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  readonly workingDir: string
  readonly volumes: readonly string[]
  readonly stopSignal: string
  readonly labels: Readonly<Record<string, string>>
  readonly diffIds: readonly Digest[]
}

export type Image = {
  /** Digest of the configuration: the image's only identity. */
  readonly id: Digest
  /** Normalised `name:tag`. */
  readonly repoTags: readonly string[]
  /** Normalised `name@digest`. */
  readonly repoDigests: readonly string[]
  /** Compressed size of all blobs, bytes. */
  readonly size: number
  readonly pinned: boolean
  readonly config: ImageConfig
  /** Chain id of the topmost layer; undefined for an image without layers. */
  readonly topLayer: Digest | undefined
  readonly createdAt: bigint
}
