import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { type Digest, digestFromHex } from '../base/digest.ts'
import { lgetxattr, llistxattr } from '../os/syscalls.ts'
import { deviceOf, type ExpectedObject, ExpectedTree } from './expected-tree.ts'
import { readRecord } from './layer-record.ts'
import { isOpaque, isReservedXattr, isWhiteout, pathIn } from './overlay-marks.ts'
import { type ContentProblem, readContent, recreateLayer } from './recreate-layer.ts'

/** `path` is relative, latin1 text, and `what` completes a sentence that begins with it; with '' it is a whole one. */
export type Difference = { readonly path: string; readonly what: string }

export type Verification = {
  /** At most `MAX_DIFFERENCES`. */
  readonly differences: readonly Difference[]
  /** How many there are in all. */
  readonly count: number
  readonly objects: number
  readonly bytes: number
}

/** As many as somebody reads; a layer that is lost as a whole has millions. */
const MAX_DIFFERENCES = 100

// utimes(2) by way of a double of seconds, and back by way of ms.
const TIME_TOLERANCE = 1e-5

/** Set by the kernel or by security modules of the host, not by layers. */
const AMBIENT_XATTRS: ReadonlySet<string> = new Set(['security.selinux', 'security.ima', 'security.evm'])
// chmod(2) after the attribute was set has changed it.
const DERIVED_XATTR = 'system.posix_acl_'

/**
 * Compares the root directory of this process, which is a layer's, with the layer's record: every object's metadata,
 * every byte of content, nothing missing, nothing more. At last the whole archive is made again and held against its
 * digest, so that nothing hangs on the record alone.
 *
 * @param onBytes told how much content was read, as it is read
 */
export function verifyLayer(record: number, diffId: Digest, onBytes: (bytes: number) => void): Verification {
  const tree = new ExpectedTree()
  for (const item of readRecord(record)) tree.apply(item)
  const found = new Findings()
  const objects = tree.objects.size
  compareTree(tree, found)
  let bytes = 0
  const count = (length: number) => {
    bytes += length
    onBytes(length)
  }
  const onProblem = (problem: ContentProblem) => found.add(problem)
  if (tree.isLossy) {
    compareContents(tree, count, onProblem)
  } else {
    const hash = createHash('sha256')
    for (const chunk of recreateLayer(record, onProblem)) {
      hash.update(chunk)
      count(chunk.length)
    }
    const digest = digestFromHex(hash.digest('hex'))
    if (digest !== diffId && found.count === 0) {
      found.add({ path: '', what: `its archive has digest ${digest} instead of ${diffId}` })
    }
  }
  return { differences: found.list, count: found.count, objects, bytes }
}

class Findings {
  readonly list: Difference[] = []
  readonly #paths = new Set<string>()
  count = 0

  /** The first thing that is wrong with each object. */
  add(difference: Difference): void {
    if (this.#paths.has(difference.path)) return
    this.count++
    if (this.list.length >= MAX_DIFFERENCES) return
    this.#paths.add(difference.path)
    this.list.push(difference)
  }
}

/** Content aside. */
function compareTree({ objects }: ExpectedTree, found: Findings): void {
  const missing = new Set(objects.keys())
  const inodes = new Map<ExpectedObject, number>()
  const pending = ['']
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const at = pathIn('', path)
    const stat = lstatSync(at, { throwIfNoEntry: false })
    if (stat === undefined) continue // reported as missing
    if (stat.isDirectory()) {
      for (const name of readdirSync(at, 'latin1')) pending.push(path === '' ? name : `${path}/${name}`)
    }
    const expected = objects.get(path)
    missing.delete(path)
    if (expected === undefined) {
      found.add({ path, what: 'is not part of the layer' })
      continue
    }
    const what = differenceOf(at, stat, expected)
    if (what !== undefined) {
      const root = path === '' ? 'its top directory ' : ''
      found.add({ path: expected.path, what: `${root}${what}` })
    }
    const inode = inodes.get(expected)
    if (inode !== undefined && inode !== stat.ino) found.add({ path, what: 'is no hard link any more' })
    inodes.set(expected, stat.ino)
  }
  for (const path of missing) found.add({ path, what: 'is missing' })
}

function differenceOf(at: Buffer, stat: Stats, expected: ExpectedObject): string | undefined {
  const type = typeOf(stat, expected)
  if (type !== expected.type) return `is a ${type} instead of a ${expected.type}`
  if (type === 'whiteout') return undefined
  const mode = stat.mode & 0o7777
  if (expected.mode !== undefined && type !== 'symlink' && mode !== expected.mode) {
    return `has mode ${octal(mode)} instead of ${octal(expected.mode)}`
  }
  if (stat.uid !== expected.uid || stat.gid !== expected.gid) {
    return `belongs to ${stat.uid}:${stat.gid} instead of ${expected.uid}:${expected.gid}`
  }
  if (type === 'file' && stat.size !== expected.size) {
    return `has ${stat.size} bytes instead of ${expected.size}`
  }
  if (type === 'symlink' && readlinkSync(at, 'latin1') !== expected.linkName) return 'leads elsewhere'
  const device = deviceOf(stat.rdev)
  if ((type === 'char' || type === 'block') && device.join() !== expected.device.join()) {
    return `is device ${device.join(':')} instead of ${expected.device.join(':')}`
  }
  if (type === 'directory' && isOpaque(at) !== expected.isOpaque) {
    return expected.isOpaque ? 'does not hide what is below it any more' : 'hides what is below it'
  }
  if (expected.mtime !== undefined && Math.abs(stat.mtimeMs / 1000 - expected.mtime) > TIME_TOLERANCE) {
    return `was modified at ${stat.mtime.toISOString()} instead of ${new Date(expected.mtime * 1000).toISOString()}`
  }
  return xattrDifference(at, expected)
}

function xattrDifference(at: Buffer, { xattrs }: ExpectedObject): string | undefined {
  const names = new Set(llistxattr(at).filter(name => !isReservedXattr(name)))
  for (const [name, value] of xattrs) {
    if (!names.delete(name)) return `lacks the attribute ${name}`
    if (!name.startsWith(DERIVED_XATTR) && lgetxattr(at, name)?.equals(value) !== true) {
      return `has another value in the attribute ${name}`
    }
  }
  const [more] = [...names].filter(name => !AMBIENT_XATTRS.has(name))
  return more === undefined ? undefined : `has the attribute ${more}, which is not part of the layer`
}

function typeOf(stat: Stats, expected: ExpectedObject): ExpectedObject['type'] {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  // A device 0:0 that the archive itself has is one too.
  if (isWhiteout(stat)) return expected.type === 'char' ? 'char' : 'whiteout'
  if (stat.isCharacterDevice()) return 'char'
  return stat.isBlockDevice() ? 'block' : 'fifo'
}

/** Of a layer whose archive cannot be made again. */
function compareContents(
  { objects }: ExpectedTree,
  onBytes: (bytes: number) => void,
  onProblem: (problem: ContentProblem) => void,
): void {
  const seen = new Set<ExpectedObject>()
  for (const [path, object] of objects) {
    if (object.type !== 'file' || object.size === 0 || seen.has(object)) continue
    seen.add(object)
    const content = readContent({ path, size: object.size, crc: object.crc }, onProblem)
    for (const chunk of content) onBytes(chunk.length)
  }
}

function octal(mode: number): string {
  return `0${mode.toString(8)}`
}
