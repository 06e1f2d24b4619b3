import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'
import { dropFromCache } from '../os/syscalls.ts'
import { ExpectedTree } from './expected-tree.ts'
import { readRecord } from './layer-record.ts'
import { pathIn } from './overlay-marks.ts'
import { BLOCK, shown } from './tar-header.ts'

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOATIME } = constants
const CHUNK = 256 * 1024

/** Content of a file that is not what its record says. */
export type ContentProblem = { readonly path: string; readonly what: string }

/**
 * The archive of the layer in this process's root directory, byte for byte as it was unpacked, from its record and
 * the files. Where a file is not what it should be, `onProblem` is told and zeros take the place of what is missing.
 *
 * An archive that has a path twice cannot be made again as it was, since the first content is gone: those entries are
 * left out, and what comes is another archive with the same result.
 */
export function* recreateLayer(
  record: number,
  onProblem: (problem: ContentProblem) => void,
): Generator<Buffer> {
  const lost = lostContents(record)
  // The headers of the entry in hand: left out with its content.
  let headers: Buffer[] = []
  let isDescribed = false
  const take = () => {
    const taken = headers
    headers = []
    isDescribed = false
    return taken
  }
  let contents = 0
  let path = ''
  // What follows the content that was last: it goes or stays with that.
  let padding = 0
  let isPaddingKept = true
  for (const item of readRecord(record)) {
    if (item.kind === 'raw') {
      if (isDescribed) yield* take() // it had no content
      if (padding > 0 && isPaddingKept) yield item.bytes.subarray(0, padding)
      headers.push(item.bytes.subarray(padding))
      padding = Math.max(0, padding - item.bytes.length)
      if (lost.size === 0) yield* take()
      continue
    }
    if (item.kind !== 'content') {
      isDescribed = true
      if (item.kind === 'put') path = item.path
      continue
    }
    padding = (BLOCK - (item.size % BLOCK)) % BLOCK
    isPaddingKept = !lost.has(contents++)
    const described = take()
    if (isPaddingKept) {
      yield* described
      yield* readContent({ path, size: item.size, crc: item.crc }, onProblem)
    }
  }
  yield* take()
}

/** How long the archive is, undefined if it would not be the one that was unpacked. */
export function archiveSize(record: number): number | undefined {
  let size = 0
  for (const item of readRecord(record)) {
    if (item.kind === 'lossy') return undefined
    if (item.kind === 'raw') size += item.bytes.length
    if (item.kind === 'content') size += item.size
  }
  return size
}

/** Numbers of the contents that later entries replaced. */
function lostContents(record: number): ReadonlySet<number> {
  const tree = new ExpectedTree()
  let isLossy = false
  for (const item of readRecord(record)) if (item.kind === 'lossy') isLossy = true
  if (!isLossy) return new Set()
  for (const item of readRecord(record)) tree.apply(item)
  const kept = new Set([...tree.objects.values()].map(({ content }) => content))
  return new Set(Array.from({ length: tree.contents }, (_, number) => number).filter(n => !kept.has(n)))
}

export type ExpectedContent = { readonly path: string; readonly size: number; readonly crc: number }

/** Reads a file's content from disk, not from the cache, and compares it. */
export function* readContent(
  { path, size, crc: expected }: ExpectedContent,
  onProblem: (problem: ContentProblem) => void,
): Generator<Buffer> {
  let left = size
  let crc = 0
  let problem: string | undefined
  let fd: number | undefined
  try {
    fd = openSync(pathIn('', path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME)
    const stat = fstatSync(fd)
    if (!stat.isFile()) problem = 'is no file any more'
    else if (stat.size !== size) problem = `has ${stat.size} bytes instead of ${size}`
    dropFromCache(fd)
    while (left > 0 && stat.isFile()) {
      const chunk = Buffer.allocUnsafe(Math.min(left, CHUNK))
      const length = readSync(fd, chunk, 0, chunk.length, null)
      if (length === 0) break
      const piece = chunk.subarray(0, length)
      crc = crc32(piece, crc)
      left -= length
      yield piece
    }
    if (problem === undefined && crc !== expected) problem = 'has other content'
  } catch (error) {
    problem = errnoOf(error) === 'ENOENT' ? 'is missing' : `cannot be read: ${messageOf(error)}`
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
  if (problem !== undefined) onProblem({ path, what: problem })
  for (; left > 0; left -= Math.min(left, CHUNK)) yield Buffer.alloc(Math.min(left, CHUNK))
}

/** For whoever needs the archive whole. */
export function failOnProblem({ path, what }: ContentProblem): never {
  throw new BerthError('precondition', `the layer is damaged: ${shown(path)} ${what}`)
}
