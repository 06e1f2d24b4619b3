import type { Readable } from 'node:stream'
import type { Digest } from '../base/digest.ts'
import type { IdMapping } from '../model/security.ts'

/** What a layer's stream turned out to be, measured while it was unpacked. */
export type UnpackedLayer = {
  /** Digest and length of the bytes as received. */
  readonly blobDigest: Digest
  readonly blobSize: number
  /** Digest of the uncompressed tar, padding after its end included. */
  readonly diffId: Digest
  /** Bytes and inodes of what was written. */
  readonly size: number
  readonly inodes: number
  /**
   * Directories that an entry's path implied but no entry described, parents first: their metadata comes from the
   * layers below at commit. Bytes as latin1 text, relative, without a leading slash; '' is the layer's root.
   */
  readonly implied: readonly string[]
  /** Whiteouts: those that hide nothing in the layers below are taken out at commit. */
  readonly whiteouts: readonly string[]
  /** Hard links whose target is not in this layer: made at commit, from the layers below. */
  readonly deferredLinks: ReadonlyArray<{ readonly path: string; readonly target: string }>
}

/** What tells a layer's directory from every other one; kept in its row. */
export type LayerSeal = {
  /** Of the record that was written while it was unpacked. */
  readonly record: Digest
  /** Of its root directory, ns. */
  readonly mtime: bigint
}

export type UnpackLimits = {
  /** Entries of one layer, directories that are only implied included. */
  readonly maxEntries: number
  /** Components of a path. */
  readonly maxDepth: number
  /** Bytes of one layer's uncompressed tar. */
  readonly maxBytes: number
  /** The same for each byte of the blob so far; 0 is no limit. What is below the floor may be anything. */
  readonly maxRatio: number
  readonly ratioFloor: number
}

/** Whose files a container's root holds when the container is in a user namespace. */
export type MappedIds = {
  /** Path of the pinned user namespace. */
  readonly namespace: string
  readonly uid: IdMapping
  readonly gid: IdMapping
}

export type MountOptions = {
  readonly ids?: MappedIds | undefined
  /** The SELinux context of every file in it. */
  readonly label?: string | undefined
}

/** Layers and root file systems as overlay directories below one root. Layers are given by their absolute paths. */
export interface Snapshots {
  /** Those that everything else is in. */
  directories(): string[]
  makeDirectories(): void
  /** Starts the unpack workers ahead of the first `unpack`, which otherwise waits for them. */
  prepare(): void
  /**
   * Unpacks one layer (gzip, zstd or plain tar, told by magic) into `staging`, which it makes; nobody sees it
   * until `publishLayers`. The caller compares digests. On an error or abort the caller removes `staging`.
   */
  unpack(source: Readable, staging: string, limits: UnpackLimits, signal: AbortSignal): Promise<UnpackedLayer>
  /**
   * Finishes an unpacked layer against those below it (topmost first), which may be in staging still, and seals it.
   */
  finishLayer(staging: string, layer: UnpackedLayer, below: readonly string[]): Promise<LayerSeal>
  /** Syncs the file system once for all of these finished layers, then renames each to `dir`, its short name. */
  publishLayers(layers: ReadonlyArray<{ readonly staging: string; readonly dir: string }>): Promise<void>
  /**
   * A look at the layer's root directory alone, microseconds: is it there, is it this layer's?
   * @param seal undefined for a layer that was unpacked without one
   * @returns what is wrong
   */
  checkLayer(dir: string, seal: LayerSeal | undefined): string | undefined
  /** A fresh staging directory name, derived from `key`; swept at start. */
  stagingPath(key: string): string
  /** Of an entry of the staging directory. */
  stagedPath(name: string): string
  layerPath(dir: string): string
  /** The record of a layer: a file, if the layer has one. */
  recordPath(dir: string): string
  /** Short names of the committed layers on disk, for the sweep of those without a row. */
  listLayerDirs(): string[]
  /** Names of the records on disk: as those of the layers they are of. */
  listRecords(): string[]
  /** Names in the staging directory: what is being unpacked, and what an earlier process left. */
  listStaging(): string[]
  /** Moves to the trash and deletes in the background, a layer's record too; gone by name at once. */
  discard(path: string): void
  /**
   * Until nothing of what was discarded takes room any more, as far as it can be deleted. Never throws.
   * @returns what is left and why; undefined if nothing is
   */
  emptied(): Promise<string | undefined>
  /** Mounts a container's writable root over the layers (topmost first); returns its path. Idempotent. */
  mountRootfs(id: string, layers: readonly string[], options?: MountOptions): string
  /** Unmounts the root file system and the image views of a container. */
  unmountRootfs(id: string): void
  /** Unmounts, then removes the writable layer. Succeeds when there is nothing. */
  removeRootfs(id: string): Promise<void>
  /** Ids of writable layers on disk. */
  listRootfs(): string[]
  rootfsPath(id: string): string
  upperPath(id: string): string
  /** A read-only view of layers for image volume number `index` of a container. Idempotent. */
  mountImageView(id: string, index: number, layers: readonly string[], options?: MountOptions): string
  /**
   * Discards what an earlier process left in staging, in the trash, and of records alone; before the first `unpack`.
   * What cannot be moved away is tried again until it is gone.
   */
  sweep(): void
  /** Ends the unpack workers; a layer that one of them is unpacking fails. The trash may be left half empty. */
  close(): Promise<void>
}
