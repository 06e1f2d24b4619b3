import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gzip, zstdCompress } from 'node:zlib'
import { type Pack, pack } from 'tar-stream'

export type Compression = 'gzip' | 'zstd' | 'none'
export type ManifestFormat = 'oci' | 'docker'

/** One entry of a layer. `content` makes it a file, `link` a hard link, `symlink` a symbolic one. */
export type LayerEntry = {
  readonly name: string
  readonly content?: string | Buffer
  readonly link?: string
  readonly symlink?: string
  /** Default: `file` with content, else `directory`. */
  readonly type?: 'file' | 'directory' | 'character-device' | 'block-device' | 'fifo'
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly device?: readonly [major: number, minor: number]
  /** Seconds since 1970; default 1 700 000 000, so that layers are the same in every run. */
  readonly mtime?: number
  /** Values are bytes: written as `SCHILY.xattr.*` PAX records. */
  readonly xattrs?: Readonly<Record<string, Buffer | string>>
  /** Further PAX records, verbatim. */
  readonly pax?: Readonly<Record<string, Buffer | string>>
}

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

export function sha256(data: Buffer | string): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`
}

export function blobOf(data: Buffer): Blob {
  return { digest: sha256(data), size: data.length, data }
}

/** A layer of these entries in this order; no parent directories are added, so that odd layers can be made. */
export async function layerOf(
  entries: readonly LayerEntry[],
  compression: Compression = 'gzip',
): Promise<Layer> {
  return layerOfTar(await tarOf(entries), compression)
}

/** A layer of bytes that need not be a tar. */
export async function layerOfTar(tar: Buffer, compression: Compression = 'gzip'): Promise<Layer> {
  return { blob: blobOf(await compress(tar, compression)), diffId: sha256(tar), compression }
}

export async function compress(data: Buffer, compression: Compression): Promise<Buffer> {
  if (compression === 'gzip') return promisify(gzip)(data)
  if (compression === 'zstd') return promisify(zstdCompress)(data)
  return data
}

export async function tarOf(entries: readonly LayerEntry[]): Promise<Buffer> {
  const archive = pack()
  const chunks: Buffer[] = []
  archive.on('data', chunk => chunks.push(chunk as Buffer))
  const ended = new Promise<void>((resolve, reject) => archive.once('end', resolve).once('error', reject))
  for (const entry of entries) addEntry(archive, entry)
  archive.finalize()
  await ended
  return Buffer.concat(chunks)
}

function addEntry(archive: Pack, entry: LayerEntry): void {
  const records = [
    ...Object.entries(entry.xattrs ?? {}).map(([name, value]) => paxRecord(`SCHILY.xattr.${name}`, value)),
    ...Object.entries(entry.pax ?? {}).map(([name, value]) => paxRecord(name, value)),
  ]
  // tar-stream writes PAX values as text only, so a binary one goes before the entry that it describes as raw blocks.
  if (records.length > 0) archive.push(rawEntry('PaxHeaders/entry', 'x', Buffer.concat(records)))
  const type = typeOf(entry)
  const header: Parameters<Pack['entry']>[0] = {
    name: entry.name,
    type,
    mode: entry.mode ?? (type === 'directory' ? 0o755 : 0o644),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    mtime: new Date((entry.mtime ?? 1_700_000_000) * 1000),
  }
  const target = entry.link ?? entry.symlink
  if (target !== undefined) header.linkname = target
  if (entry.device !== undefined) [header.devmajor, header.devminor] = entry.device
  if (type === 'file') archive.entry(header, Buffer.from(entry.content ?? ''))
  else archive.entry(header)
}

function typeOf(entry: LayerEntry): NonNullable<LayerEntry['type']> | 'link' | 'symlink' {
  if (entry.type !== undefined) return entry.type
  if (entry.link !== undefined) return 'link'
  if (entry.symlink !== undefined) return 'symlink'
  return entry.content === undefined ? 'directory' : 'file'
}

/** `<length> <key>=<value>\n`, where the length counts itself (POSIX pax, "pax Extended Header"). */
function paxRecord(key: string, value: Buffer | string): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as string), Buffer.from('\n')])
  let length = body.length
  while (String(length).length + body.length !== length) length = String(length).length + body.length
  return Buffer.concat([Buffer.from(String(length)), body])
}

/**
 * A ustar entry with nothing checked: any type flag, a name of any bytes, and a size field that may differ from the
 * body.
 */
export function rawEntry(
  name: string | Buffer,
  typeflag: string,
  body: Buffer,
  claimedSize = body.length,
): Buffer {
  const header = Buffer.alloc(512)
  Buffer.from(name as string).copy(header, 0, 0, 100)
  header.write('0000644\0', 100)
  header.write('0000000\0', 108)
  header.write('0000000\0', 116)
  header.write(`${claimedSize.toString(8).padStart(11, '0')}\0`, 124)
  header.write(`${(1_700_000_000).toString(8).padStart(11, '0')}\0`, 136)
  header.write('        ', 148)
  header.write(typeflag, 156, 1, 'latin1')
  header.write('ustar\0' + '00', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512)])
}
