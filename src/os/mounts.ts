import { closeSync, constants, openSync, readFileSync, readSync, realpathSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'
import {
  isBoundOnItself,
  type MountEntry,
  mountsIn,
  type Propagation,
  parseMountInfo,
  propagationIn,
} from './mountinfo.ts'
import * as sys from './syscalls.ts'

const MS_RDONLY = 1
export const MS_NOSUID = 2
export const MS_NODEV = 4
export const MS_NOEXEC = 8
const MS_BIND = 4096
const MS_REC = 16384
const MS_PRIVATE = 1 << 18
const MS_SLAVE = 1 << 19
const MS_SHARED = 1 << 20
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8
const MOUNT_ATTR_RDONLY = 1

/** mount(2). `flags` are MS_* bits, `data` the file system's own options. */
export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  effectSync('os', 'mount', target, () => sys.mount(source, target, type, flags, data))
}

/** Both exist and are of the same kind. Read-only covers everything below only if `recursive`. */
export function bindMount(
  source: string,
  target: string,
  options: { recursive?: boolean; readonly?: boolean } = {},
): void {
  const recursive = options.recursive === true
  mount(source, target, '', MS_BIND | (recursive ? MS_REC : 0), '')
  if (options.readonly !== true) return
  effectSync('os', 'mount-readonly', target, () => sys.mountSetattr(target, recursive, MOUNT_ATTR_RDONLY, 0))
}

/**
 * Shows `source` at `target` with the owners of its files mapped by the user namespace at `userNamespace` (a path of
 * its nsfs file). What is mounted below `source` is left out.
 */
export function mountMapped(source: string, target: string, userNamespace: string): void {
  effectSync('os', 'mount-mapped', target, () => {
    const namespace = openSync(userNamespace, constants.O_RDONLY)
    try {
      const copy = sys.cloneMount(source)
      try {
        sys.mapMountIds(copy, namespace)
        sys.moveMount(copy, target)
      } finally {
        closeSync(copy)
      }
    } finally {
      closeSync(namespace)
    }
  })
}

/** Makes a mount that is nowhere yet, known by its descriptor, one at `target`. */
export function attachMount(mount: number, target: string): void {
  effectSync('os', 'attach-mount', target, () => sys.moveMount(mount, target))
}

export function makePrivate(target: string, recursive = false): void {
  setPropagation(target, MS_PRIVATE, recursive)
}

export function makeShared(target: string, recursive = false): void {
  setPropagation(target, MS_SHARED, recursive)
}

export function makeSlave(target: string, recursive = false): void {
  setPropagation(target, MS_SLAVE, recursive)
}

function setPropagation(target: string, type: number, recursive: boolean): void {
  mount('', target, '', type | (recursive ? MS_REC : 0), '')
}

/**
 * Makes `dir` a private mount point (bound on itself), so that mounts below it spread nowhere. Nothing happens if a
 * former daemon did it.
 */
export function makePrivateMountPoint(dir: string): void {
  if (!isMountPoint(dir)) bindMount(dir, dir)
  makePrivate(dir)
}

/** The end of `makePrivateMountPoint`: what somebody else mounted at `dir`, such as a disk for it alone, stays. */
export function removePrivateMountPoint(dir: string): void {
  const path = realpathSync(dir)
  if (isBoundOnItself(readMounts(), path)) unmount(path, { detach: true })
}

/**
 * Unmounts the topmost mount at `target`, which is not followed if it is a symlink.
 * @returns false if nothing is mounted there, or there is no such path
 */
export function unmount(target: string, options: { detach?: boolean } = {}): boolean {
  const flags = UMOUNT_NOFOLLOW | (options.detach === true ? MNT_DETACH : 0)
  try {
    effectSync('os', 'unmount', target, () => sys.umount(target, flags))
    return true
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'EINVAL' || code === 'ENOENT') return false
    throw error
  }
}

/** Detaches every mount stacked at `target`. */
export function unmountAll(target: string): void {
  while (unmount(target, { detach: true }));
}

/** Something is mounted at `path` itself, which is not followed if it is a symlink. */
export function isMountPoint(path: string): boolean {
  const own = mountId(path)
  return own !== undefined && (path === '/' || own !== mountId(dirname(path)))
}

/** Which mount `path` is on. Asked of a descriptor: reading all of mountinfo takes 2 ms at 1000 mounts. */
function mountId(path: string): string | undefined {
  const O_PATH = 0o10000000
  let fd: number
  try {
    fd = openSync(path, O_PATH | constants.O_NOFOLLOW)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    return /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
  } finally {
    closeSync(fd)
  }
}

/** Mounts at and below `dir`, in the order they were made. */
export function mountsBelow(dir: string): MountEntry[] {
  return mountsIn(readMounts(), dir)
}

/** Mount points at and below `dir`, deepest first; one that is stacked appears once per mount. */
export function mountPointsBelow(dir: string): string[] {
  return mountsBelow(dir)
    .map(entry => entry.mountPoint)
    .sort((a, b) => b.length - a.length)
}

/** How mounts made on the file system that holds `path` spread. `path` is resolved as it stands. */
export function propagationOf(path: string): Propagation {
  return propagationIn(readMounts(), realpathSync(path))
}

function readMounts(): MountEntry[] {
  return parseMountInfo(readFileSync('/proc/thread-self/mountinfo', 'utf8'))
}

export type OverlayOptions = {
  /** Absolute, topmost first. */
  readonly lowers: readonly string[]
  /** Both or neither: without them the overlay is read-only and wants two lowers. */
  readonly upper?: string
  readonly work?: string
  readonly target: string
  /**
   * No syncs: after a crash of the machine the upper directory must be thrown away. The kernel refuses a work
   * directory that such a mount has used; it must be made anew.
   */
  readonly volatile?: boolean
  readonly readonly?: boolean
  /** The SELinux context that all of its files have. */
  readonly label?: string | undefined
}

/** Mounts an overlay of up to 128 layers and more. `index=off`: layers are shared by many mounts. */
export function mountOverlay(options: OverlayOptions): void {
  effectSync('os', 'mount-overlay', options.target, () => {
    if (!mountByContext(options)) mountByData(options)
  })
}

// What fsconfig(2) takes as one value, and mount(2) as all options, terminating NUL included.
const MAX_VALUE = 256
const MAX_DATA = 4096

/** undefined until the kernel was asked. */
let appendsLowers: boolean | undefined

/**
 * Layer by layer through fsconfig(2), which has no limit for all of them together.
 * @returns false if the kernel (before 6.8) or a path does not permit it
 */
function mountByContext(o: OverlayOptions): boolean {
  appendsLowers ??= probeAppend()
  const paths = [...o.lowers, o.upper ?? '', o.work ?? '', o.label ?? '']
  // Of these values the kernel takes some as they are and reads backslashes in others.
  if (!appendsLowers || paths.some(path => Buffer.byteLength(path) >= MAX_VALUE || path.includes('\\'))) {
    return false
  }
  const context = sys.fsopen('overlay')
  try {
    sys.fsconfigSet(context, 'source', 'overlay')
    for (const lower of o.lowers) sys.fsconfigSet(context, 'lowerdir+', lower)
    if (o.upper !== undefined && o.work !== undefined) {
      sys.fsconfigSet(context, 'upperdir', o.upper)
      sys.fsconfigSet(context, 'workdir', o.work)
    }
    sys.fsconfigSet(context, 'index', 'off')
    if (o.volatile === true) sys.fsconfigSet(context, 'volatile', undefined)
    if (o.label !== undefined) sys.fsconfigSet(context, 'context', o.label)
    sys.fsconfigCreate(context)
    const mount = sys.fsmount(context, o.readonly === true ? MOUNT_ATTR_RDONLY : 0)
    try {
      sys.moveMount(mount, o.target)
    } finally {
      closeSync(mount)
    }
    return true
  } catch (error) {
    throw explained(error, context, o.target)
  } finally {
    closeSync(context)
  }
}

function probeAppend(): boolean {
  let context: number | undefined
  try {
    context = sys.fsopen('overlay')
    sys.fsconfigSet(context, 'lowerdir+', '/')
    return true
  } catch (error) {
    if (errnoOf(error) === 'EINVAL' || errnoOf(error) === 'ENOSYS') return false
    throw error
  } finally {
    if (context !== undefined) closeSync(context)
  }
}

/** The errno with what the kernel wrote about it into the context (`e overlay: ...`). */
function explained(error: unknown, context: number, target: string): BerthError {
  const buffer = Buffer.alloc(4096)
  const lines: string[] = []
  try {
    // One message per read; the kernel keeps at most eight.
    for (let i = 0; i < 8; i++) lines.push(buffer.toString('utf8', 0, readSync(context, buffer)).trim())
  } catch {
    // ENODATA: that was the last one.
  }
  const said = lines.length === 0 ? '' : `: ${lines.join('; ')}`
  return new BerthError('internal', `overlay on ${target}: ${messageOf(error)}${said}`, error)
}

/**
 * All options in one page for mount(2). When absolute paths do not fit, the lowers are named from the directory
 * they share; the working directory is back before anything else can run on this thread.
 */
export function mountByData(o: OverlayOptions): void {
  const flags = o.readonly === true ? MS_RDONLY : 0
  const data = overlayData(o, undefined)
  if (Buffer.byteLength(data) < MAX_DATA) {
    sys.mount('overlay', o.target, 'overlay', flags, data)
    return
  }
  const base = commonDirectory(o.lowers)
  const short = overlayData(o, base)
  if (Buffer.byteLength(short) >= MAX_DATA) {
    const limit = `more than the ${MAX_DATA - 1} bytes that mount(2) takes`
    throw new BerthError(
      'exhausted',
      `overlay on ${o.target}: the paths of ${o.lowers.length} layers are ${limit}`,
    )
  }
  const cwd = process.cwd()
  process.chdir(base)
  try {
    sys.mount('overlay', o.target, 'overlay', flags, short)
  } finally {
    process.chdir(cwd)
  }
}

/** The option string, with lowers relative to `base` if it is given. */
function overlayData(o: OverlayOptions, base: string | undefined): string {
  const lowers = o.lowers.map(path => escapeLower(base === undefined ? path : relative(base, path) || '.'))
  const options = [`lowerdir=${lowers.join(':')}`, 'index=off']
  if (o.upper !== undefined && o.work !== undefined) {
    options.push(`upperdir=${escapeValue(o.upper)}`, `workdir=${escapeValue(o.work)}`)
  }
  if (o.volatile === true) options.push('volatile')
  if (o.label !== undefined) options.push(labelOption(o.label))
  return options.join(',')
}

/** Levels have commas, which end an option unless it is quoted. */
export function labelOption(context: string): string {
  return `context="${context}"`
}

/** In a value a comma, in a list of lowers also a colon, is written with a backslash before it. */
function escapeValue(path: string): string {
  return path.replace(/[\\,]/g, '\\$&')
}

function escapeLower(path: string): string {
  return path.replace(/[\\,:]/g, '\\$&')
}

/** The deepest directory that all the absolute paths lie in. */
function commonDirectory(paths: readonly string[]): string {
  const [first = [], ...rest] = paths.map(path => path.split('/').slice(0, -1))
  let length = first.length
  for (const parts of rest) {
    let same = 0
    while (same < length && parts[same] === first[same]) same++
    length = same
  }
  return first.slice(0, length).join('/') || '/'
}
