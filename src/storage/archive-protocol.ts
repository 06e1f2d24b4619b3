/** What the daemon and the process that reads layers and archives back say to one another. */
import type { Digest } from '../base/digest.ts'
import type { ErrorCode } from '../base/errors.ts'
import type { Verification } from './verify-layer.ts'

export type LayerFiles = {
  /** The layer's directory. */
  readonly dir: string
  /** Its record, and that file's digest. */
  readonly record: string
  readonly recordDigest: Digest
  readonly diffId: Digest
}

/** One of the files of an archive, in the order of the archive. */
export type SpooledFile =
  | { readonly name: string; readonly file: string; readonly size: number; readonly digest: Digest }
  /** `target` is another name in the archive. */
  | { readonly name: string; readonly target: string }

export type SpoolLimits = {
  /** Files of one archive. */
  readonly maxFiles: number
  /** Bytes of one archive, uncompressed. */
  readonly maxBytes: number
}

export type RecreatedLayer = { readonly digest: Digest; readonly size: number }

export type ArchiveJob =
  /** Compares a layer with its record. */
  | { readonly kind: 'verify'; readonly layer: LayerFiles }
  /** Tells the digest and size of the archive that `recreate` makes. */
  | { readonly kind: 'measure'; readonly layer: LayerFiles }
  /** The same, to the daemon, in frames. */
  | { readonly kind: 'recreate'; readonly layer: LayerFiles }
  /** Reads an archive from the daemon, in frames, and lays its files into a directory, which it makes. */
  | { readonly kind: 'spool'; readonly directory: string; readonly limits: SpoolLimits }

export type ArchiveReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'progress'; readonly bytes: number }
  | { readonly kind: 'verified'; readonly verification: Verification }
  | { readonly kind: 'recreated'; readonly layer: RecreatedLayer }
  | { readonly kind: 'spooled'; readonly files: readonly SpooledFile[] }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string }
