import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { effect, effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'
import { mountPointsBelow } from './mounts.ts'
import type { PathLike } from './native.ts'
import * as sys from './syscalls.ts'

const FILE_SYSTEM = '/sys/fs/selinux'
const SETTINGS = '/etc/selinux'
const ATTRIBUTE = 'security.selinux'

/** What the loaded policy gives to containers, from the file that libselinux's selinux_lxc_contexts_path(3) names. */
export type SelinuxPolicy = {
  /** `system_u:system_r:container_t:s0` */
  readonly process: string
  /** `system_u:object_r:container_file_t:s0` */
  readonly file: string
}

/** For a policy that says nothing of containers: what everybody else's tools take then. */
const USUAL: SelinuxPolicy = {
  process: 'system_u:system_r:container_t:s0',
  file: 'system_u:object_r:container_file_t:s0',
}

/** @returns undefined where the kernel has no SELinux, or no policy is loaded */
export function selinuxPolicy(): SelinuxPolicy | undefined {
  if (!existsSync(`${FILE_SYSTEM}/enforce`)) return undefined
  const type = /^\s*SELINUXTYPE=\s*(\S+)/m.exec(readIfThere(`${SETTINGS}/config`))?.[1] ?? 'targeted'
  const policy = parseContexts(readIfThere(`${SETTINGS}/${type}/contexts/lxc_contexts`))
  // Without levels in the policy no context may have one.
  return readIfThere(`${FILE_SYSTEM}/mls`).startsWith('1')
    ? policy
    : { process: withoutLevel(policy.process), file: withoutLevel(policy.file) }
}

/** Lines `process = "system_u:system_r:container_t:s0"`. */
export function parseContexts(text: string): SelinuxPolicy {
  const found = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^\s*(\w+)\s*=\s*"?([^"\s]+)"?\s*$/.exec(line)
    if (match?.[1] !== undefined && match[2] !== undefined) found.set(match[1], match[2])
  }
  return { process: found.get('process') ?? USUAL.process, file: found.get('file') ?? USUAL.file }
}

function withoutLevel(context: string): string {
  return context.split(':').slice(0, 3).join(':')
}

/** Whether the loaded policy has such a context: its user, role, type and level exist and go together. */
export function isValidContext(context: string): boolean {
  try {
    writeFileSync(`${FILE_SYSTEM}/context`, `${context}\0`)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EINVAL') return false
    throw error
  }
}

/** Of one file, which is not followed if it is a symlink. A file system without labels stays without. */
export function setContext(path: string, context: string): void {
  effectSync('os', 'set-context', path, () => label(path, Buffer.from(`${context}\0`)))
}

/** Entries that are labelled in one go, between which the event loop turns: some milliseconds. */
const BATCH = 512

export type RelabelLimits = {
  /** Files and directories. */
  readonly maxEntries: number
  /** Directories in each other. */
  readonly maxDepth: number
}

/**
 * Gives a file, or a directory with everything in it, a context. The top comes last, so that it tells whether all was
 * done. What is written into meanwhile may be anybody's: no symlink is followed, wherever it appears, and what is mounted
 * inside stays as it is. What vanishes meanwhile, and file systems without labels, count as done.
 * @param onlyIfTopDiffers nothing is done when the top has the context already
 * @throws BerthError exhausted, beyond the limits
 */
export async function relabelTree(
  top: string,
  context: string,
  limits: RelabelLimits,
  onlyIfTopDiffers: boolean,
): Promise<void> {
  const value = Buffer.from(`${context}\0`)
  if (onlyIfTopDiffers && hasLabel(top, value)) return
  await effect('os', 'relabel', top, async () => {
    if (lstatSync(top).isDirectory()) await relabelBelow(top, value, limits)
    label(top, value)
  })
}

async function relabelBelow(top: string, value: Buffer, limits: RelabelLimits): Promise<void> {
  const mounted = new Set(mountPointsBelow(top))
  const root = openSync(top, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    // Directories by their way from the top, in bytes.
    const waiting = [{ way: Buffer.from('.'), depth: 0 }]
    let entries = 0
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const { way, depth } = next
      if (depth > limits.maxDepth) throw tooLarge(top, `directories nested more than ${limits.maxDepth} deep`)
      const fd = openBelow(root, way)
      if (fd === undefined) continue
      try {
        const here = Buffer.from(`/proc/self/fd/${fd}/`)
        for (const entry of readdirSync(here, { withFileTypes: true, encoding: 'buffer' })) {
          const inner = Buffer.concat([way, Buffer.from('/'), entry.name])
          if (mounted.has(join(top, inner.toString()))) continue
          if (++entries > limits.maxEntries) throw tooLarge(top, `more than ${limits.maxEntries} files`)
          label(Buffer.concat([here, entry.name]), value)
          if (entry.isDirectory()) waiting.push({ way: inner, depth: depth + 1 })
          if (entries % BATCH === 0) await new Promise(resolve => setImmediate(resolve))
        }
      } finally {
        closeSync(fd)
      }
    }
  } finally {
    closeSync(root)
  }
}

function tooLarge(top: string, what: string): BerthError {
  return new BerthError('exhausted', `relabel ${top}: it has ${what}`)
}

const RESOLVE_NO_XDEV = 1
const RESOLVE_NO_SYMLINKS = 4
const RESOLVE_BENEATH = 8

/** undefined: gone meanwhile, something else by now, or another mount. */
function openBelow(root: number, way: Buffer): number | undefined {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
  try {
    return sys.openat2(root, way, flags, 0, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'EXDEV') return undefined
    throw error
  }
}

function label(path: PathLike, value: Buffer): void {
  try {
    if (!hasLabel(path, value)) sys.lsetxattr(path, ATTRIBUTE, value)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'EOPNOTSUPP') return
    throw new BerthError(
      'precondition',
      `no SELinux label for ${path.toString()}: ${messageOf(error)}`,
      error,
    )
  }
}

function hasLabel(path: PathLike, value: Buffer): boolean {
  return sys.lgetxattr(path, ATTRIBUTE)?.equals(value) === true
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : ''
}

/** Of the node: labels there decide what the node's own services may do. With everything below them. */
const NEVER_BELOW = [
  '/bin',
  '/boot',
  '/dev',
  '/etc',
  '/lib',
  '/lib32',
  '/lib64',
  '/libx32',
  '/proc',
  '/sbin',
  '/sys',
  '/usr',
]

/** Themselves alone: what is in them may be somebody's volume. */
const NEVER = [
  '/',
  '/home',
  '/media',
  '/mnt',
  '/opt',
  '/root',
  '/run',
  '/srv',
  '/tmp',
  '/var',
  '/var/lib',
  '/var/log',
  '/var/tmp',
]

/**
 * Whether a client may have a directory relabelled (CVE-2021-43816).
 * @param path resolved, absolute
 * @param own the daemon's directories: neither they, nor what is in them, nor what they are in
 */
export function mayRelabel(path: string, own: readonly string[]): boolean {
  const isIn = (inner: string, outer: string) => inner === outer || inner.startsWith(join(outer, '/'))
  if (NEVER.includes(path) || NEVER_BELOW.some(outer => isIn(path, outer))) return false
  return !own.some(directory => isIn(path, directory) || isIn(directory, path))
}
