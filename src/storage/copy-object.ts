import { chmodSync, constants, lchownSync, lstatSync, readlinkSync, symlinkSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { lgetxattr, llistxattr, lsetxattr, mknod, setTimes } from '../os/syscalls.ts'
import type { StackedObject } from './layer-stack.ts'
import { isReservedXattr } from './overlay-marks.ts'

/** A copy that differs in nothing but its inode, at a path where nothing is. Directories are not copied. */
export async function copyObject(source: StackedObject, target: Buffer): Promise<void> {
  const { stat } = source
  if (stat.isFile()) {
    // A copy that shares its blocks where the file system can do that; on a thread of libuv's pool.
    await copyFile(source.path, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  } else if (stat.isSymbolicLink()) {
    symlinkSync(readlinkSync(source.path, 'buffer'), target)
  } else {
    mknod(target, stat.mode, majorOf(stat.rdev), minorOf(stat.rdev))
  }
  copyMetadata(source, target)
}

/** Owner, attributes, mode and times, in this order: chown clears set-id bits and capabilities. */
export function copyMetadata(source: StackedObject, target: Buffer): void {
  const { path, stat } = source
  lchownSync(target, stat.uid, stat.gid)
  for (const name of llistxattr(path)) {
    const value = isReservedXattr(name) ? undefined : lgetxattr(path, name)
    if (value !== undefined) lsetxattr(target, name, value)
  }
  if (!stat.isSymbolicLink()) chmodSync(target, stat.mode & 0o7777)
  setTimes(target, lstatSync(path, { bigint: true }).mtimeNs)
}

/** dev_t as glibc spreads it: 12 and 20 bits, the lower 8 of each where they always were. */
function majorOf(dev: number): number {
  return Number((BigInt(dev) >> 8n) & 0xfffn)
}

function minorOf(dev: number): number {
  return Number((BigInt(dev) & 0xffn) | ((BigInt(dev) >> 12n) & 0xfff00n))
}
