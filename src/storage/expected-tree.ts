import { constants } from 'node:fs'
import type { MadeObject, RecordItem } from './layer-record.ts'
import { type TarEntry, type TarEntryType, TarReader } from './layer-tar.ts'
import { isReservedXattr } from './overlay-marks.ts'

/** What a record says about one object of the layer's directory. Two paths with the same one are hard links. */
export type ExpectedObject = {
  /** The first of its paths. */
  readonly path: string
  readonly type: Exclude<TarEntryType, 'hardlink'> | 'whiteout'
  /** undefined: nobody described it, and the kernel's defaults are not of interest. */
  readonly mode: number | undefined
  readonly uid: number
  readonly gid: number
  /** Seconds; undefined: not described. */
  readonly mtime: number | undefined
  readonly size: number
  crc: number
  readonly linkName: string
  readonly device: readonly [major: number, minor: number]
  readonly xattrs: Map<string, Buffer>
  isOpaque: boolean
  /** Number of the content in the archive, counted from 0; undefined for a file without. */
  content: number | undefined
}

const { S_IFMT, S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK } = constants

// In place of content, for the reader of headers.
const ZEROS = Buffer.alloc(1024 * 1024)

/**
 * Replays a record: what the layer's directory has to hold when it is whole, by path. Memory grows with the number of
 * objects, which the unpacking has limited.
 */
export class ExpectedTree {
  readonly objects = new Map<string, ExpectedObject>()
  /** Contents of the archive, those that are not on disk any more included. */
  contents = 0
  isLossy = false
  #entry: TarEntry | undefined
  #put: ExpectedObject | undefined
  readonly #reader: TarReader

  constructor() {
    this.#reader = new TarReader({
      entry: entry => {
        this.#entry = entry
      },
      content: () => undefined,
      endOfEntry: () => undefined,
    })
    this.objects.set('', impliedDirectory(''))
  }

  apply(item: RecordItem): void {
    switch (item.kind) {
      case 'raw':
        this.#reader.push(item.bytes)
        break
      case 'put':
        this.#putEntry(item.path)
        break
      case 'content':
        this.#content(item.size, item.crc)
        break
      case 'link':
        this.#set(item.path, this.objects.get(item.target))
        break
      case 'whiteout':
        this.objects.set(item.path, object({ path: item.path, type: 'whiteout' }))
        break
      case 'implied':
        this.objects.set(item.path, { ...impliedDirectory(item.path), isOpaque: this.#isOpaque(item.path) })
        break
      case 'opaque':
        this.#opaque(item.path)
        break
      case 'remove':
      case 'dropped':
        this.objects.delete(item.path)
        break
      case 'no-xattr':
        this.#put?.xattrs.delete(item.name)
        break
      case 'made':
        this.#made(item.object)
        break
      case 'lossy':
        this.isLossy = true
        break
    }
  }

  #putEntry(path: string): void {
    const entry = this.#entry
    if (entry === undefined || entry.type === 'hardlink') return
    const before = this.objects.get(path)
    const merged = entry.type === 'directory' && before?.type === 'directory' ? before : undefined
    const xattrs = [...entry.xattrs].filter(([name]) => !isReservedXattr(name))
    this.#put = object({
      path,
      type: entry.type,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtime: entry.mtime,
      size: entry.size,
      linkName: entry.type === 'symlink' ? entry.linkName : '',
      device: entry.type === 'char' || entry.type === 'block' ? [entry.major, entry.minor] : [0, 0],
      xattrs: new Map([...(merged?.xattrs ?? []), ...xattrs]),
      isOpaque: merged?.isOpaque ?? false,
    })
    this.objects.set(path, this.#put)
  }

  #content(size: number, crc: number): void {
    for (let left = size; left > 0; left -= ZEROS.length) this.#reader.push(ZEROS.subarray(0, left))
    if (this.#put !== undefined) {
      this.#put.crc = crc
      this.#put.content = this.contents
    }
    this.contents++
  }

  #opaque(path: string): void {
    const directory = this.objects.get(path)
    if (directory?.type === 'directory') directory.isOpaque = true
    else this.objects.set(path, { ...impliedDirectory(path), isOpaque: true })
  }

  #isOpaque(path: string): boolean {
    return this.objects.get(path)?.isOpaque ?? false
  }

  #made(made: MadeObject): void {
    const before = this.objects.get(made.path)
    this.objects.set(
      made.path,
      object({
        path: made.path,
        type: typeOf(made.mode),
        mode: made.mode & 0o7777,
        uid: made.uid,
        gid: made.gid,
        mtime: made.mtimeMs / 1000,
        size: made.size,
        linkName: made.linkName ?? '',
        device: deviceOf(made.rdev),
        xattrs: new Map(
          Object.entries(made.xattrs).map(([name, value]) => [name, Buffer.from(value, 'base64')]),
        ),
        isOpaque: before?.isOpaque ?? false,
        crc: made.crc ?? 0,
        content: before?.content,
      }),
    )
  }

  #set(path: string, target: ExpectedObject | undefined): void {
    if (target !== undefined) this.objects.set(path, target)
  }
}

function object(fields: Partial<ExpectedObject> & Pick<ExpectedObject, 'path' | 'type'>): ExpectedObject {
  return {
    mode: undefined,
    uid: 0,
    gid: 0,
    mtime: undefined,
    size: 0,
    crc: 0,
    linkName: '',
    device: [0, 0],
    xattrs: new Map(),
    isOpaque: false,
    content: undefined,
    ...fields,
  }
}

function impliedDirectory(path: string): ExpectedObject {
  return object({ path, type: 'directory', mode: 0o755 })
}

function typeOf(mode: number): ExpectedObject['type'] {
  const type = mode & S_IFMT
  if (type === S_IFREG) return 'file'
  if (type === S_IFDIR) return 'directory'
  if (type === S_IFLNK) return 'symlink'
  if (type === S_IFCHR) return 'char'
  return type === S_IFBLK ? 'block' : 'fifo'
}

/** dev_t as glibc spreads it: 12 and 20 bits, the lower 8 of each where they always were. */
export function deviceOf(rdev: number): [major: number, minor: number] {
  const dev = BigInt(rdev)
  return [Number((dev >> 8n) & 0xfffn), Number((dev & 0xffn) | ((dev >> 12n) & 0xfff00n))]
}
