import { join, relative } from 'node:path'

/** One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export type MountEntry = {
  readonly id: number
  readonly parent: number
  /** `8:1` */
  readonly device: string
  /** Path inside the file system that is mounted here. */
  readonly root: string
  readonly mountPoint: string
  /** Mounts made below spread to this peer group. */
  readonly shared: boolean
  /** Mounts made in a master spread to here. */
  readonly slave: boolean
  readonly type: string
  readonly source: string
  /** Per file system: `rw,cpu,cpuacct`. */
  readonly superOptions: readonly string[]
}

export type Propagation = { readonly mountPoint: string; readonly shared: boolean; readonly slave: boolean }

export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = []
  for (const line of text.split('\n')) {
    const fields = line.split(' ')
    const dash = fields.indexOf('-', 6)
    if (dash < 0) continue
    const [id = '', parent = '', device = '', root = '', mountPoint = ''] = fields
    const optional = fields.slice(6, dash)
    entries.push({
      id: Number(id),
      parent: Number(parent),
      device,
      root: decodeOctal(root),
      mountPoint: decodeOctal(mountPoint),
      shared: optional.some(field => field.startsWith('shared:')),
      slave: optional.some(field => field.startsWith('master:')),
      type: fields[dash + 1] ?? '',
      source: decodeOctal(fields[dash + 2] ?? ''),
      superOptions: (fields[dash + 3] ?? '').split(','),
    })
  }
  return entries
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function decodeOctal(text: string): string {
  if (!text.includes('\\')) return text
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/** Mounts at and below `dir`. */
export function mountsIn(entries: readonly MountEntry[], dir: string): MountEntry[] {
  return entries.filter(entry => isWithin(entry.mountPoint, dir))
}

/**
 * What is mounted at `dir` (absolute, without symlinks) is the directory itself that would be there without it, and no
 * other disk or directory that somebody mounted there.
 */
export function isBoundOnItself(entries: readonly MountEntry[], dir: string): boolean {
  const own = entries.findLast(({ mountPoint }) => mountPoint === dir)
  const parent = entries.find(({ id }) => id === own?.parent)
  if (own === undefined || parent === undefined || own.device !== parent.device) return false
  return own.root === join(parent.root, relative(parent.mountPoint, dir))
}

/** The mount that `path` (absolute, without symlinks) is on: the last one made at the deepest mount point. */
export function propagationIn(entries: readonly MountEntry[], path: string): Propagation {
  let found: MountEntry | undefined
  for (const entry of entries) {
    if (!isWithin(path, entry.mountPoint)) continue
    if (found === undefined || entry.mountPoint.length >= found.mountPoint.length) found = entry
  }
  const { mountPoint, shared, slave } = found ?? { mountPoint: '/', shared: false, slave: false }
  return { mountPoint, shared, slave }
}

function isWithin(path: string, dir: string): boolean {
  return dir === '/' || path === dir || path.startsWith(`${dir}/`)
}
