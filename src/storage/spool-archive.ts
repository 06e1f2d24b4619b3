import { createHash, type Hash } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { BerthError } from '../base/errors.ts'
import type { SpooledFile, SpoolLimits } from './archive-protocol.ts'
import { decompress, sniff } from './decompress.ts'
import { type TarEntry, TarReader, type TarSink } from './layer-tar.ts'
import { shown } from './tar-header.ts'

/**
 * Lays the files of an archive (gzip, zstd or plain tar) into `directory` under names of our own: those in the archive
 * say nothing about a path on this node.
 * @throws BerthError invalid for a damaged archive, exhausted beyond the limits; an errno error
 */
export async function spoolArchive(
  source: AsyncIterable<Buffer>,
  directory: string,
  limits: SpoolLimits,
): Promise<SpooledFile[]> {
  mkdirSync(directory, { mode: 0o700 })
  const sink = new SpoolSink(directory, limits)
  const reader = new TarReader(sink)
  try {
    await decompress(await sniff(source), chunk => {
      sink.count(chunk.length)
      reader.push(chunk)
    })
    reader.end()
  } finally {
    sink.close()
  }
  return sink.files
}

type OpenFile = {
  readonly fd: number
  readonly name: string
  readonly file: string
  readonly size: number
  readonly hash: Hash
}

class SpoolSink implements TarSink {
  readonly files: SpooledFile[] = []
  readonly #directory: string
  readonly #limits: SpoolLimits
  #bytes = 0
  #open: OpenFile | undefined

  constructor(directory: string, limits: SpoolLimits) {
    this.#directory = directory
    this.#limits = limits
  }

  count(bytes: number): void {
    this.#bytes += bytes
    const { maxBytes } = this.#limits
    if (this.#bytes > maxBytes)
      throw new BerthError('exhausted', `the archive has more than ${maxBytes} bytes`)
  }

  entry(entry: TarEntry): void {
    if (entry.type === 'directory') return
    const { maxFiles } = this.#limits
    if (this.files.length >= maxFiles) {
      throw new BerthError('exhausted', `the archive has more than ${maxFiles} files`)
    }
    const name = plainName(entry.name)
    if (entry.type === 'symlink' || entry.type === 'hardlink') {
      // docker save writes a layer that it has written before as a link to that.
      const base = entry.type === 'symlink' ? name.split('/').slice(0, -1) : []
      this.files.push({ name, target: plainName([...base, entry.linkName].join('/')) })
    } else if (entry.type === 'file') {
      const file = join(this.#directory, String(this.files.length))
      const fd = openSync(file, 'wx', 0o600)
      this.#open = { fd, name, file, size: entry.size, hash: createHash('sha256') }
    } else {
      throw new BerthError('invalid', `${shown(entry.name)}: an image archive has files and links only`)
    }
  }

  content(chunk: Buffer): void {
    const { fd, hash } = this.#open!
    hash.update(chunk)
    for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at)
  }

  endOfEntry(): void {
    if (this.#open === undefined) return // a directory or a link
    const { name, file, size, hash } = this.#open
    this.close()
    const digest: Digest = digestFromHex(hash.digest('hex'))
    this.files.push({ name, file, size, digest })
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd)
    this.#open = undefined
  }
}

/** Without dots; what leads out of the archive ends at its root. */
function plainName(name: string): string {
  const parts: string[] = []
  for (const part of name.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts.join('/')
}
