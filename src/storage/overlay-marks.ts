/** How overlayfs writes deletions into a layer (kernel: Documentation/filesystems/overlayfs.rst), and file copies. */
import { constants, lstatSync, type Stats } from 'node:fs'
import { lgetxattr, lsetxattr, mknod } from '../os/syscalls.ts'

const OPAQUE = 'trusted.overlay.opaque'
const { S_IFCHR } = constants

/** A path from a directory and a name below it; names are bytes as latin1 text. */
export function pathIn(dir: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name, 'latin1')])
}

/** undefined if there is nothing. */
export function lstatIfThere(path: Buffer | string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

export function isWhiteout(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0
}

export function makeWhiteout(path: Buffer): void {
  mknod(path, S_IFCHR, 0, 0)
}

export function isOpaque(dir: Buffer): boolean {
  return lgetxattr(dir, OPAQUE)?.toString('latin1') === 'y'
}

export function makeOpaque(dir: Buffer): void {
  lsetxattr(dir, OPAQUE, Buffer.from('y'))
}

/**
 * Attributes that steer overlayfs and others that only the system itself may set: a layer cannot bring them, and
 * they are not copied.
 */
export function isReservedXattr(name: string): boolean {
  return name.startsWith('trusted.') || name.startsWith('user.overlay.')
}
