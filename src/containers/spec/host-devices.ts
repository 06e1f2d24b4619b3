import { type Dirent, lstatSync, readdirSync, type Stats, statSync } from 'node:fs'
import path from 'node:path'
import { errnoOf, invalid } from '../../base/errors.ts'
import type { Device } from '../../model/container.ts'
import { resolveOnNode } from '../../os/files.ts'
import type { HostDevice } from './spec.ts'

const S_IFMT = 0o170000
const S_IFCHR = 0o020000
const S_IFBLK = 0o060000

/** Directories of /dev that every container has its own of. */
const OWN_DIRECTORIES = new Set(['pts', 'shm', 'mqueue', 'fd'])

/** The runtime binds the console itself. */
const OWN_FILES = new Set(['console'])

/** Far above any real /dev; deeper or longer ones are cut off. */
const MAX_DEPTH = 8
const MAX_DEVICES = 16_384

/** What is looked at below a requested directory: `/` would hold up everything else for a minute. */
const MAX_ENTRIES = 10_000

/** Every device node of the host, for privileged containers. Symlinks are not followed. */
export function listHostDevices(root = '/dev'): HostDevice[] {
  return [...walk(root, root, 'rwm', 0, { left: Number.POSITIVE_INFINITY })].slice(0, MAX_DEVICES)
}

/**
 * The nodes that one requested device stands for: itself, or all below a directory.
 * @throws BerthError invalid, naming `field`, if it is missing or no device
 */
export function resolveDevice(device: Device, field: string): HostDevice[] {
  const access = device.permissions === '' ? 'rwm' : device.permissions
  if (!/^[rwm]{1,3}$/.test(access)) {
    throw invalid(`${field}.permissions`, `expected letters of "rwm", got ${JSON.stringify(access)}`)
  }
  const source = realPath(device.hostPath, field)
  const stats = statSync(source)
  const target = device.containerPath || device.hostPath
  if (stats.isDirectory()) {
    const seen = { left: MAX_ENTRIES }
    const nodes = [...walk(source, target, access, 0, seen)].slice(0, MAX_DEVICES)
    if (seen.left < 0) {
      throw invalid(
        `${field}.host_path`,
        `${JSON.stringify(device.hostPath)} has more than ${MAX_ENTRIES} entries; expected a directory of devices`,
      )
    }
    if (nodes.length > 0) return nodes
  }
  const node = toDevice(target, stats, access)
  if (node !== undefined) return [node]
  throw invalid(`${field}.host_path`, `${JSON.stringify(device.hostPath)} is no device`)
}

function realPath(file: string, field: string): string {
  try {
    return resolveOnNode(file)
  } catch (error) {
    const why = errnoOf(error) === 'ENOENT' ? 'does not exist' : `cannot be read (${errnoOf(error)})`
    throw invalid(`${field}.host_path`, `${JSON.stringify(file)} ${why}`)
  }
}

function* walk(
  directory: string,
  target: string,
  access: string,
  depth: number,
  seen: { left: number },
): Iterable<HostDevice> {
  for (const entry of entriesOf(directory)) {
    if (--seen.left < 0) return
    const file = path.join(directory, entry.name)
    const to = path.join(target, entry.name)
    if (entry.isDirectory()) {
      if (depth < MAX_DEPTH && !(depth === 0 && OWN_DIRECTORIES.has(entry.name))) {
        yield* walk(file, to, access, depth + 1, seen)
      }
    } else if ((entry.isCharacterDevice() || entry.isBlockDevice()) && !OWN_FILES.has(entry.name)) {
      const stats = lstatSync(file, { throwIfNoEntry: false })
      const node = stats === undefined ? undefined : toDevice(to, stats, access)
      if (node !== undefined) yield node
    }
  }
}

function entriesOf(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return [] // it went while its siblings were looked at, or shows nothing to anybody
  }
}

/** Linux dev_t as glibc lays it out. */
export function toDevice(target: string, stats: Stats, access: string): HostDevice | undefined {
  const kind = stats.mode & S_IFMT
  if (kind !== S_IFCHR && kind !== S_IFBLK) return undefined
  const dev = BigInt(stats.rdev)
  return {
    path: target,
    type: kind === S_IFCHR ? 'c' : 'b',
    major: Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n)),
    minor: Number((dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)),
    mode: stats.mode & 0o777,
    uid: stats.uid,
    gid: stats.gid,
    access,
  }
}
