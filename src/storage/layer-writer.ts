import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  lchownSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { crc32 } from 'node:zlib'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'
import { link, lsetxattr, mknod, setTimes } from '../os/syscalls.ts'
import { checkPath, parseEntryPath, splitPath } from './entry-path.ts'
import type { RecordWriter } from './layer-record.ts'
import type { TarEntry, TarSink } from './layer-tar.ts'
import { isPlainDirectory, LayerTree } from './layer-tree.ts'
import { isReservedXattr, isWhiteout } from './overlay-marks.ts'
import type { UnpackedLayer, UnpackLimits } from './snapshots.ts'
import { malformed, shown } from './tar-header.ts'

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, S_IFCHR, S_IFBLK, S_IFIFO } = constants
// The kernel's dev_t: 12 and 20 bits.
const MAX_MAJOR = 0xfff
const MAX_MINOR = 0xfffff
// The highest id means "leave it" to chown(2).
const MAX_ID = 0xfffffffe
// ext4 keeps shorter targets in the inode.
const INLINE_SYMLINK = 60

/** What a layer's entries became; see UnpackedLayer. */
export type WrittenLayer = Pick<
  UnpackedLayer,
  'size' | 'inodes' | 'implied' | 'whiteouts' | 'deferredLinks'
> & {
  /** What the layer asked for and did not get, for the log. */
  readonly warning: string | undefined
}

export type WriterOptions = UnpackLimits & {
  /** Devices cannot be made in a user namespace: they are left out. */
  readonly skipDevices: boolean
}

/**
 * Writes the entries of a layer below the root directory of this process (OCI image spec, "Layer Filesystem
 * Changeset"), with whiteouts as overlayfs has them. Order per object: create, owner, attributes, mode, times; chown
 * clears set-id bits and capabilities, hence it comes first. Symlinks are never followed to an object.
 */
export class LayerWriter implements TarSink {
  readonly #tree: LayerTree
  readonly #options: WriterOptions
  readonly #record: RecordWriter
  /** What a later entry in the directory would change again. */
  readonly #directoryTimes = new Map<string, bigint>()
  readonly #deferredLinks = new Map<string, string>()
  #file: { readonly fd: number; readonly path: string; readonly entry: TarEntry } | undefined
  #current: TarEntry | undefined
  /** CRC-32 of the file's content so far: enough to tell damage, and a quarter of a digest's work. */
  #crc = 0
  #skippedXattrs = 0
  #firstSkipped = ''

  constructor(options: WriterOptions, record: RecordWriter) {
    this.#options = options
    this.#record = record
    this.#tree = new LayerTree(options, record)
  }

  entry(entry: TarEntry): void {
    this.#current = entry
    this.#explained(() => this.#apply(entry))
  }

  content(chunk: Buffer): void {
    const file = this.#file
    if (file === undefined) {
      this.#record.raw(chunk) // of an entry that was left out
      return
    }
    this.#crc = crc32(chunk, this.#crc)
    this.#explained(() => {
      for (let at = 0; at < chunk.length; ) at += writeSync(file.fd, chunk, at)
    })
  }

  endOfEntry(): void {
    this.#explained(() => this.#finishFile())
  }

  /** After the last entry. */
  finish(): WrittenLayer {
    for (const [path, mtime] of this.#directoryTimes) {
      if (isPlainDirectory(path)) setTimes(this.#tree.at(path), mtime)
    }
    // A link may have been replaced after it, by a directory that an entry implied; so may its directory.
    const links = [...this.#deferredLinks].filter(
      ([path]) => isPlainDirectory(parentOf(path)) && this.#tree.stat(path) === undefined,
    )
    return {
      size: this.#tree.size,
      inodes: this.#tree.inodes,
      implied: [...this.#tree.implied],
      whiteouts: [...this.#tree.whiteouts],
      deferredLinks: links.map(([path, target]) => ({ path, target })),
      warning:
        this.#skippedXattrs === 0
          ? undefined
          : `${this.#skippedXattrs} extended attributes could not be set, the first: ${this.#firstSkipped}`,
    }
  }

  /** Says in which entry it happened. */
  #explained(work: () => void): void {
    try {
      work()
    } catch (error) {
      const code = error instanceof BerthError ? error.code : codeOf(error)
      const name = shown(this.#current?.name ?? '')
      throw new BerthError(code, `layer entry ${name}: ${messageOf(error)}`, error)
    }
  }

  #apply(entry: TarEntry): void {
    const tree = this.#tree
    tree.countEntry()
    const path = parseEntryPath(entry.name, this.#options.maxDepth)
    if (path.kind === 'ignored') return
    if (path.kind === 'opaque') {
      tree.makeOpaque(tree.resolveDirectory(path.parts))
      return
    }
    const target = this.#resolve(path.parts)
    if (path.kind === 'object') this.#applyObject(target, entry)
    else if (!this.#deferredLinks.has(target)) tree.whiteOut(target)
  }

  /** Follows symlinks on the way, not at the end. */
  #resolve(parts: readonly string[]): string {
    if (parts.length === 0) return ''
    const parent = this.#tree.resolveDirectory(parts.slice(0, -1))
    const path = parent === '' ? parts.at(-1)! : `${parent}/${parts.at(-1)}`
    checkPath(path.split('/'), this.#options.maxDepth)
    return path
  }

  #applyObject(path: string, entry: TarEntry): void {
    checkIds(entry)
    if (entry.type === 'directory') this.#makeDirectory(path, entry)
    else if (entry.type === 'hardlink') this.#makeHardLink(path, entry)
    else if (entry.type === 'file') this.#openFile(path, entry)
    else if (entry.type === 'fifo' || entry.type === 'symlink' || !this.#options.skipDevices) {
      this.#makeSpecial(path, entry)
    }
  }

  /** Makes room for a new object. */
  #clear(path: string): void {
    const stat = this.#tree.stat(path)
    if (stat !== undefined) this.#tree.remove(path, stat)
    this.#deferredLinks.delete(path)
  }

  #openFile(path: string, entry: TarEntry): void {
    this.#clear(path)
    const fd = openSync(this.#tree.at(path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    this.#file = { fd, path, entry }
    this.#crc = 0
    this.#record.put(path)
    this.#tree.countObject(entry.size)
  }

  #makeSpecial(path: string, entry: TarEntry): void {
    this.#clear(path)
    this.#record.put(path)
    const at = this.#tree.at(path)
    if (entry.type === 'symlink') {
      if (entry.linkName === '') throw malformed('symlink without a target')
      symlinkSync(Buffer.from(entry.linkName, 'latin1'), at)
      this.#tree.countObject(entry.linkName.length < INLINE_SYMLINK ? 0 : entry.linkName.length)
    } else {
      makeNode(at, entry)
      this.#tree.countObject(0)
    }
    lchownSync(at, entry.uid, entry.gid)
    this.#setXattrs(at, entry)
    if (entry.type !== 'symlink') chmodSync(at, entry.mode)
    setTimes(at, entry.mtimeNs)
  }

  #makeDirectory(path: string, entry: TarEntry): void {
    const tree = this.#tree
    const stat = tree.stat(path)
    const at = tree.at(path)
    if (stat?.isDirectory() !== true) {
      tree.makeDirectory(path, stat)
      if (this.#deferredLinks.delete(path)) tree.makeOpaque(path)
    }
    this.#record.put(path)
    tree.implied.delete(path)
    lchownSync(at, entry.uid, entry.gid)
    this.#setXattrs(at, entry)
    chmodSync(at, entry.mode)
    tree.countName(path)
    this.#directoryTimes.set(path, entry.mtimeNs)
  }

  /** The linked object was described by its own entry, so the link's metadata says nothing new. */
  #makeHardLink(path: string, entry: TarEntry): void {
    const tree = this.#tree
    const parts = splitPath(entry.linkName)
    if (parts.length === 0) throw malformed('hard link to the root of the layer')
    const parent = tree.findDirectory(parts.slice(0, -1))
    const target = parent === undefined || parent === '' ? parts.at(-1)! : `${parent}/${parts.at(-1)}`
    if (target === path && parent !== undefined) throw malformed('hard link to itself')
    const stat = parent === undefined ? undefined : tree.stat(target)
    const isHere = stat !== undefined && !isWhiteout(stat)
    if (stat?.isDirectory() === true) throw malformed(`hard link to the directory ${shown(target)}`)
    this.#clear(path)
    if (isHere) {
      link(tree.at(target), tree.at(path))
      this.#record.link(path, target)
      return
    }
    const deferred = parent === undefined ? parts.join('/') : target
    checkPath(deferred.split('/'), this.#options.maxDepth)
    tree.countName(path + deferred)
    this.#deferredLinks.set(path, deferred)
    this.#record.link(path, deferred)
  }

  #finishFile(): void {
    const file = this.#file
    if (file === undefined) return
    this.#file = undefined
    const { fd, entry } = file
    if (entry.size > 0) this.#record.content(entry.size, this.#crc)
    try {
      fchownSync(fd, entry.uid, entry.gid)
      this.#setXattrs(this.#tree.at(file.path), entry)
      fchmodSync(fd, entry.mode)
    } finally {
      closeSync(fd)
    }
    setTimes(this.#tree.at(file.path), entry.mtimeNs)
  }

  #setXattrs(at: Buffer, entry: TarEntry): void {
    for (const [name, value] of entry.xattrs) {
      if (isReservedXattr(name)) continue
      try {
        lsetxattr(at, name, value)
      } catch (error) {
        const code = errnoOf(error)
        // Only files and directories can have user attributes.
        const isForeign = code === 'EPERM' && name.startsWith('user.')
        if (code !== 'EOPNOTSUPP' && code !== 'ENOTSUP' && !isForeign) throw error
        this.#record.noXattr(name)
        if (this.#skippedXattrs++ === 0)
          this.#firstSkipped = `${shown(name)} of ${shown(entry.name)}: ${code}`
      }
    }
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

function checkIds(entry: TarEntry): void {
  if (entry.uid > MAX_ID || entry.gid > MAX_ID) {
    throw malformed(`owner ${entry.uid}:${entry.gid} is out of range, at most ${MAX_ID}`)
  }
}

function makeNode(at: Buffer, entry: TarEntry): void {
  if (entry.type === 'fifo') {
    mknod(at, S_IFIFO | 0o600, 0, 0)
    return
  }
  if (entry.major > MAX_MAJOR || entry.minor > MAX_MINOR) {
    throw malformed(`device ${entry.major}:${entry.minor} is out of range`)
  }
  mknod(at, (entry.type === 'char' ? S_IFCHR : S_IFBLK) | 0o600, entry.major, entry.minor)
}

function codeOf(error: unknown): 'exhausted' | 'invalid' | 'internal' {
  const code = errnoOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return 'exhausted'
  if (code === 'ENAMETOOLONG' || code === 'EMLINK' || code === 'EINVAL') return 'invalid'
  return 'internal'
}
