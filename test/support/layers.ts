import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gzip, zstdCompress } from 'node:zlib'
import { type TarFixture, tar } from './tar.ts'

export type Compression = 'gzip' | 'zstd' | 'none'
export type ManifestFormat = 'oci' | 'docker'

/** Something a registry serves by digest. Big blobs lie in a file. */
export type Blob = {
  readonly digest: string
  readonly size: number
  readonly data: Buffer | { readonly file: string }
}

export type Layer = {
  readonly blob: Blob
  /** Digest of the uncompressed tar. */
  readonly diffId: string
  readonly compression: Compression
}

function sha256(data: Buffer): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`
}

export function blobOf(data: Buffer): Blob {
  return { digest: sha256(data), size: data.length, data }
}

/**
 * A layer of these entries in this order. No parent directories are added, so that odd layers can be made; a whole
 * archive may be given as bytes, so that it need not be a tar.
 */
export async function layerOf(
  content: ReadonlyArray<TarFixture | Buffer> | Buffer,
  compression: Compression = 'gzip',
): Promise<Layer> {
  const archive = Buffer.isBuffer(content) ? content : tar(content)
  return { blob: blobOf(await compress(archive, compression)), diffId: sha256(archive), compression }
}

async function compress(data: Buffer, compression: Compression): Promise<Buffer> {
  if (compression === 'gzip') return promisify(gzip)(data)
  if (compression === 'zstd') return promisify(zstdCompress)(data)
  return data
}
