import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { dirname, posix } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { effect, effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, precondition } from '../base/errors.ts'
import { mountPointsBelow } from './mounts.ts'
import * as sys from './syscalls.ts'

const RESOLVE_NO_MAGICLINKS = 0x02
const RESOLVE_IN_ROOT = 0x10
const O_PATH = 0o10000000

/**
 * Whoever reads `path` sees the old content or the new. `sync`: it survives a crash of the machine. The temporary
 * file is `<path>.tmp`; a leftover is overwritten.
 */
export function writeFileAtomic(
  path: string,
  data: string | Buffer,
  mode: number,
  options: { sync?: boolean } = {},
): void {
  effectSync('os', 'write-file', path, () => {
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
    const temporary = `${path}.tmp`
    const fd = openSync(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode)
    try {
      writeFileSync(fd, data)
      fchmodSync(fd, mode)
      if (options.sync === true) fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
    if (options.sync === true) fsyncDir(dirname(path))
  })
}

/** mkdir -p; `path` itself gets exactly `mode`, also if it was there and whatever the umask is. */
export function ensureDir(path: string, mode: number): void {
  effectSync('os', 'mkdir', path, () => {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    chmodSync(path, mode)
  })
}

/** Lets this group through a directory that is otherwise its owner's alone. */
export function openDirectory(path: string, gid: number): void {
  effectSync('os', 'open-directory', path, () => {
    chownSync(path, 0, gid)
    chmodSync(path, 0o710)
  })
}

/** Of what is in a directory; none if there is no such directory. */
export function namesIn(directory: string): string[] {
  return ifThere(() => readdirSync(directory)) ?? []
}

export function fsyncDir(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** syncfs(2) of the file system that holds `path`, off the main thread. */
export function syncFileSystem(path: string): Promise<void> {
  return effect('os', 'syncfs', path, async () => {
    const fd = openSync(path, constants.O_RDONLY)
    try {
      await sys.syncfs(fd, path)
    } finally {
      closeSync(fd)
    }
  })
}

/**
 * rm -rf; nothing happens if `path` does not exist. Never crosses a mount.
 * @throws BerthError precondition if something is mounted at or below it
 */
export async function removeTree(path: string): Promise<void> {
  const mounted = mountPointsBelow(path)
  if (mounted.length > 0) throw precondition(`cannot remove ${path}: ${mounted.join(', ')} is mounted`)
  await effect('os', 'remove-tree', path, () => rm(path, { recursive: true, force: true }))
}

/** Held by the kernel as long as this process lives, so none is ever stale. */
export class FileLock {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** @throws BerthError precondition, naming the pid that holds it */
  static acquire(path: string): FileLock {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
    const fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
    if (!sys.tryLock(fd)) {
      closeSync(fd)
      throw precondition(`${path} is locked by process ${holderIn(path)}`)
    }
    ftruncateSync(fd)
    writeSync(fd, `${process.pid}\n`, 0)
    return new FileLock(fd)
  }

  /** The pid of who holds it, as far as the file tells; undefined if nobody does. Changes nothing. */
  static holder(path: string): string | undefined {
    const file = ifThere(() => statSync(path, { bigint: true }))
    if (file === undefined) return undefined
    const inode = new RegExp(`^\\d+: FLOCK .* [0-9a-f]+:[0-9a-f]+:${file.ino} `, 'm')
    return inode.test(readFileSync('/proc/locks', 'utf8')) ? holderIn(path) : undefined
  }

  release(): void {
    closeSync(this.#fd)
  }
}

function holderIn(path: string): string {
  return readFileSync(path, 'utf8').trim() || 'unknown'
}

export type FileSystemUsage = {
  readonly bytesTotal: number
  /** What an unprivileged user may still write. */
  readonly bytesFree: number
  readonly inodesTotal: number
  readonly inodesFree: number
}

export function fsUsage(path: string): FileSystemUsage {
  const s = statfsSync(path)
  return {
    bytesTotal: s.blocks * s.bsize,
    bytesFree: s.bavail * s.bsize,
    inodesTotal: s.files,
    inodesFree: s.ffree,
  }
}

export type TreeUsage = { readonly bytes: number; readonly inodes: number }

// ~1 ms of lstat calls: what the event loop may be held up between two requests.
const ENTRIES_PER_TURN = 500

/**
 * Disk usage of `dir` and everything below it, as `du` counts: blocks, every inode once, one file system only. What
 * vanishes meanwhile is not counted. Gives the event loop a turn now and then.
 */
export async function treeUsage(dir: string): Promise<TreeUsage> {
  const linked = new Set<bigint>()
  // Names are bytes: those in an image need not be UTF-8.
  const pending: Buffer[] = [Buffer.from(dir)]
  let bytes = 0
  let inodes = 0
  let seen = 0
  let device: bigint | undefined
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (++seen % ENTRIES_PER_TURN === 0) await setImmediate()
    const stat = ifThere(() => lstatSync(path, { bigint: true }))
    if (stat === undefined) continue
    device ??= stat.dev
    if (stat.dev !== device) continue
    if (stat.nlink > 1n && !stat.isDirectory()) {
      if (linked.has(stat.ino)) continue
      linked.add(stat.ino)
    }
    bytes += Number(stat.blocks) * 512
    inodes++
    if (!stat.isDirectory()) continue
    for (const name of ifThere(() => readdirSync(path, { encoding: 'buffer' })) ?? []) {
      pending.push(Buffer.concat([path, Buffer.from('/'), name]))
    }
  }
  return { bytes, inodes }
}

function ifThere<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

/**
 * The path of what an absolute path of the node leads to, symlinks resolved. Links of /proc that only look like some
 * (`/proc/PID/fd/N`, `/proc/PID/root`) lead out of every mount and namespace and are refused with ELOOP.
 */
export function resolveOnNode(path: string): string {
  const fd = sys.openat2(undefined, path, O_PATH, 0, RESOLVE_NO_MAGICLINKS)
  try {
    return readlinkSync(fdPath(fd))
  } finally {
    closeSync(fd)
  }
}

/*
 * Paths inside a tree whose content is hostile (an image, a container's root). The kernel resolves them
 * (openat2(2)): `..` and absolute symlinks stay inside the root, magic links of /proc are refused.
 */

/** A descriptor, close-on-exec. Errors carry the errno in `code`. */
export function openInRoot(root: string, path: string, flags: number, mode = 0): number {
  const dir = openSync(root, O_PATH | constants.O_DIRECTORY)
  try {
    return sys.openat2(dir, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
  } finally {
    closeSync(dir)
  }
}

function withObject<T>(root: string, path: string, flags: number, use: (fd: number) => T): T | undefined {
  let fd: number
  try {
    fd = openInRoot(root, path, O_PATH | flags)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw error
  }
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

/** The host's path of the object that `path` leads to; undefined if there is none. */
export function resolveInRoot(root: string, path: string): string | undefined {
  return withObject(root, path, 0, fd => readlinkSync(fdPath(fd)))
}

/**
 * Content of a regular file; undefined if there is none. Nothing else is even opened.
 * @throws BerthError precondition for what is no regular file, exhausted beyond `maxBytes`
 */
export function readInRoot(root: string, path: string, maxBytes: number): Buffer | undefined {
  return withObject(root, path, 0, object => {
    if (!fstatSync(object).isFile()) throw precondition(`${path} in ${root} is not a regular file`)
    const fd = openSync(fdPath(object), constants.O_RDONLY)
    try {
      return readAll(fd, maxBytes, `${path} in ${root}`)
    } finally {
      closeSync(fd)
    }
  })
}

function readAll(fd: number, maxBytes: number, what: string): Buffer {
  const buffer = Buffer.alloc(Math.min(fstatSync(fd).size, maxBytes) + 1)
  let length = 0
  for (let got = -1; got !== 0 && length < buffer.length; length += got) {
    got = readSync(fd, buffer, length, buffer.length - length, null)
  }
  if (length > maxBytes) throw new BerthError('exhausted', `${what} is larger than ${maxBytes} bytes`)
  return buffer.subarray(0, length)
}

/** As the kernel's own limit for one path. */
const MAX_SYMLINKS = 40

/**
 * mkdir -p inside `root`; `..` is taken out of `path` as text first. Directories that it makes get `mode` and
 * `owner`, those that exist keep theirs.
 * @throws an errno error, ENOTDIR or EEXIST where something else is in the way
 */
export function mkdirInRoot(
  root: string,
  path: string,
  mode: number,
  owner: { uid: number; gid: number } = { uid: 0, gid: 0 },
): void {
  // The target of a symlink to nowhere is made instead, which may again be behind one.
  let wanted: string | undefined = path
  for (let links = MAX_SYMLINKS; wanted !== undefined; links--) {
    if (links === 0) throw new BerthError('invalid', `${path} in ${root}: too many symlinks`)
    wanted = makeUntilLink(root, posix.resolve('/', wanted), { mode, ...owner })
  }
}

/** @returns undefined when all is made, else the path with the first symlink to nowhere replaced by where it leads */
function makeUntilLink(
  root: string,
  path: string,
  as: { mode: number; uid: number; gid: number },
): string | undefined {
  const parts = path.split('/').filter(Boolean)
  let parent = openSync(root, O_PATH | constants.O_DIRECTORY)
  try {
    for (const [i, name] of parts.entries()) {
      const prefix = parts.slice(0, i + 1).join('/')
      const found = findDirectory(root, prefix)
      const target = found === undefined ? linkTarget(parent, name) : undefined
      if (target !== undefined) {
        const here = posix.relative(realpathSync(root), readlinkSync(fdPath(parent)))
        return posix.resolve('/', here, target, ...parts.slice(i + 1))
      }
      const next = found ?? makeDirectory(root, prefix, `${fdPath(parent)}/${name}`, as)
      closeSync(parent)
      parent = next
    }
    return undefined
  } finally {
    closeSync(parent)
  }
}

function linkTarget(dir: number, name: string): string | undefined {
  const at = `${fdPath(dir)}/${name}`
  const isLink = lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink() === true
  return isLink ? readlinkSync(at) : undefined
}

function findDirectory(root: string, path: string): number | undefined {
  try {
    return openInRoot(root, path, O_PATH | constants.O_DIRECTORY)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

type NewDirectory = { readonly mode: number; readonly uid: number; readonly gid: number }

function makeDirectory(root: string, path: string, hostPath: string, made: NewDirectory): number {
  effectSync('os', 'mkdir', `${root}/${path}`, () => mkdirSync(hostPath))
  const fd = openInRoot(root, path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  chownSync(fdPath(fd), made.uid, made.gid)
  chmodSync(fdPath(fd), made.mode)
  return fd
}

function fdPath(fd: number): string {
  return `/proc/self/fd/${fd}`
}
