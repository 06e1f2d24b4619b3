import {
  chmodSync,
  closeSync,
  constants,
  lchownSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from 'node:fs'
import { BerthError } from '../base/errors.ts'
import { openat2 } from '../os/syscalls.ts'
import { checkPath } from './entry-path.ts'
import type { RecordWriter } from './layer-record.ts'
import { isWhiteout, lstatIfThere, makeOpaque, makeWhiteout, pathIn } from './overlay-marks.ts'
import type { UnpackLimits } from './snapshots.ts'
import { malformed, shown } from './tar-header.ts'

const O_PATH = 0o10000000
const RESOLVE_NO_SYMLINKS = 0x04
// As the kernel's own limit for one path.
const MAX_SYMLINKS = 40
// What a layer of a million directories with long names takes; the worker's heap is a multiple of it.
const MAX_NAME_BYTES = 64 * 1024 * 1024
const FS_BLOCK = 4096

/**
 * The tree of one layer below the root directory of this process, which is the layer's. Paths are relative, without
 * dots, bytes as latin1 text; '' is the root. Every path is resolved afresh, since an entry may replace a directory
 * that the entry before it went through.
 */
export class LayerTree {
  readonly #limits: UnpackLimits
  readonly #record: RecordWriter
  /** Directories that nothing has described yet. */
  readonly implied = new Set<string>([''])
  readonly whiteouts = new Set<string>()
  size = FS_BLOCK
  inodes = 1
  #entries = 0
  #nameBytes = 0

  constructor(limits: UnpackLimits, record: RecordWriter) {
    this.#limits = limits
    this.#record = record
  }

  /** The host's form of a path. */
  at(path: string): Buffer {
    return pathIn('', path)
  }

  stat(path: string): Stats | undefined {
    return lstatIfThere(this.at(path))
  }

  /** @throws BerthError exhausted */
  countEntry(): void {
    this.#entries++
    if (this.#entries > this.#limits.maxEntries) {
      throw new BerthError('exhausted', `more than ${this.#limits.maxEntries} entries in one layer`)
    }
  }

  /** Counts a name that is kept until the end of the layer. @throws BerthError exhausted */
  countName(name: string): void {
    this.#nameBytes += name.length
    if (this.#nameBytes > MAX_NAME_BYTES) {
      throw new BerthError('exhausted', `more than ${MAX_NAME_BYTES} bytes of names to remember in one layer`)
    }
  }

  countObject(bytes: number): void {
    this.size += Math.ceil(bytes / FS_BLOCK) * FS_BLOCK
    this.inodes++
  }

  /** The directory that `parts` lead to, symlinks followed inside the layer; made where it is missing. */
  resolveDirectory(parts: readonly string[]): string {
    const path = parts.join('/')
    return isPlainDirectory(path) ? path : this.#walk(parts, true)!
  }

  /** As `resolveDirectory`, but undefined instead of making anything. */
  findDirectory(parts: readonly string[]): string | undefined {
    const path = parts.join('/')
    return isPlainDirectory(path) ? path : this.#walk(parts, false)
  }

  #walk(parts: readonly string[], make: boolean): string | undefined {
    const pending = [...parts].reverse()
    let resolved: string[] = []
    let symlinks = 0
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === '' || part === '.') continue
      if (part === '..') {
        resolved.pop() // in a symlink only; what was resolved is free of symlinks, and the root is its own parent
        continue
      }
      const next = [...resolved, part]
      const path = next.join('/')
      const stat = this.stat(path)
      if (stat?.isSymbolicLink() === true) {
        if (++symlinks > MAX_SYMLINKS)
          throw malformed(`too many symlinks on the way to ${shown(parts.join('/'))}`)
        const target = readlinkSync(this.at(path), 'latin1')
        if (target.startsWith('/')) resolved = []
        pending.push(...target.split('/').reverse())
        continue
      }
      if (stat?.isDirectory() !== true) {
        if (!make) return undefined
        this.#imply(next, path, stat)
      }
      resolved = next
    }
    return resolved.join('/')
  }

  #imply(parts: readonly string[], path: string, stat: Stats | undefined): void {
    if (stat !== undefined && !isWhiteout(stat))
      throw malformed(`${shown(path)} is in the way: not a directory`)
    checkPath(parts, this.#limits.maxDepth)
    this.countEntry()
    this.makeDirectory(path, stat)
    // A new directory takes owner and set-group-id bit from the one it is in.
    lchownSync(this.at(path), 0, 0)
    chmodSync(this.at(path), 0o755)
    this.#record.implied(path)
    if (stat !== undefined) return // in place of a whiteout it has nothing to do with what was there
    this.countName(path)
    this.implied.add(path)
  }

  /** In place of `existing`, whatever that is: then nothing below it in lower layers may show. */
  makeDirectory(path: string, existing: Stats | undefined): void {
    if (existing !== undefined) this.remove(path, existing)
    mkdirSync(this.at(path), 0o755)
    this.countObject(FS_BLOCK)
    if (existing !== undefined) this.makeOpaque(path)
  }

  makeOpaque(path: string): void {
    makeOpaque(this.at(path))
    this.#record.opaque(path)
  }

  /** An object of this layer stays, whether it came before its whiteout or comes after. */
  whiteOut(path: string): void {
    const stat = this.stat(path)
    if (stat === undefined) {
      makeWhiteout(this.at(path))
      this.#record.whiteout(path)
      this.countObject(0)
      this.countName(path)
      this.whiteouts.add(path)
    } else if (stat.isDirectory()) {
      this.makeOpaque(path)
      this.implied.delete(path) // a new directory, as if its whiteout had come first
    }
  }

  /** With everything below it. */
  remove(path: string, stat: Stats): void {
    if (path === '') throw malformed('the root of a layer can only be a directory')
    this.#record.remove(path, stat.isFile() && stat.size > 0)
    if (stat.isDirectory()) {
      for (const name of readdirSync(this.at(path), 'latin1')) {
        const child = `${path}/${name}`
        this.remove(child, this.stat(child)!)
      }
      rmdirSync(this.at(path))
      this.implied.delete(path)
    } else {
      unlinkSync(this.at(path))
      this.whiteouts.delete(path)
    }
    if (stat.isDirectory() || stat.nlink === 1) {
      const bytes = stat.isDirectory() ? FS_BLOCK : stat.isFile() ? stat.size : 0
      this.size -= Math.ceil(bytes / FS_BLOCK) * FS_BLOCK
      this.inodes--
    }
  }
}

/** Whether a path leads to a directory without going through a symlink. */
export function isPlainDirectory(path: string): boolean {
  if (path === '') return true
  try {
    const flags = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW
    closeSync(openat2(undefined, pathIn('', path), flags, 0, RESOLVE_NO_SYMLINKS))
    return true
  } catch {
    return false
  }
}
