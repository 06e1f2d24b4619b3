import {
  chmodSync,
  constants,
  copyFileSync,
  lchownSync,
  lutimesSync,
  mkdirSync,
  readlinkSync,
  type Stats,
  symlinkSync,
} from 'node:fs'
import { BerthError } from '../base/errors.ts'
import { lgetxattr, link, llistxattr, lsetxattr } from '../os/syscalls.ts'
import { isOpaque, isReservedXattr, isWhiteout, lstatIfThere, pathIn } from './overlay-marks.ts'
import type { UnpackedLayer } from './snapshots.ts'
import { shown } from './tar-header.ts'

type Found = { readonly path: Buffer; readonly stat: Stats }

/**
 * Finishes a layer that was unpacked without those below it. In an overlay the upper directory's metadata wins, so a
 * directory that entries only implied takes that of the topmost layer below that has it; and a hard link to a file of
 * a lower layer needs that file in this one.
 *
 * @param below absolute directories, topmost first
 * @throws BerthError invalid for a link to nothing
 */
export function completeLayer(staging: string, layer: UnpackedLayer, below: readonly string[]): void {
  for (const path of layer.implied) inheritDirectory(staging, path, below)
  for (const { path, target } of layer.deferredLinks) {
    const at = pathIn(staging, target)
    if (lstatIfThere(at) === undefined) copyUp(staging, target, below, path)
    link(at, pathIn(staging, path))
  }
}

function inheritDirectory(staging: string, path: string, below: readonly string[]): void {
  const found = findBelow(staging, path, below)
  if (found?.stat.isDirectory() === true) copyMetadata(found, pathIn(staging, path))
}

/** What `path` (relative, latin1) is in the layers below, as an overlay on top of them would show it. */
function findBelow(staging: string, path: string, below: readonly string[]): Found | undefined {
  if (hidesLower(staging, path)) return undefined
  for (const layer of below) {
    const found = lookUp(layer, path)
    if (found !== 'absent') return found
    if (hidesLower(layer, path)) return undefined
  }
  return undefined
}

/** undefined: the layer hides whatever lower ones have there. Symlinks are never followed. */
function lookUp(layer: string, path: string): Found | 'absent' | undefined {
  const parts = path === '' ? [] : path.split('/')
  for (let length = 0; length < parts.length; length++) {
    const stat = lstatIfThere(pathIn(layer, parts.slice(0, length).join('/')))
    if (stat === undefined) return 'absent'
    if (!stat.isDirectory()) return undefined
  }
  const at = pathIn(layer, path)
  const stat = lstatIfThere(at)
  if (stat === undefined) return 'absent'
  return isWhiteout(stat) ? undefined : { path: at, stat }
}

/** A directory on the way, or the object itself, is opaque in this layer. */
function hidesLower(layer: string, path: string): boolean {
  const parts = path === '' ? [] : path.split('/')
  for (let length = 1; length <= parts.length; length++) {
    const at = pathIn(layer, parts.slice(0, length).join('/'))
    const stat = lstatIfThere(at)
    if (stat === undefined) return false
    if (stat.isDirectory() && isOpaque(at)) return true
  }
  return false
}

/** The target of a hard link, with its directories, from the layers below into this one. */
function copyUp(staging: string, target: string, below: readonly string[], link: string): void {
  const found = findBelow(staging, target, below)
  if (found === undefined || found.stat.isDirectory()) {
    throw new BerthError(
      'invalid',
      `layer: hard link ${shown(link)}: its target ${shown(target)} does not exist`,
    )
  }
  const parts = target.split('/')
  for (let length = 1; length < parts.length; length++) {
    const directory = parts.slice(0, length).join('/')
    const at = pathIn(staging, directory)
    if (lstatIfThere(at) !== undefined) continue
    mkdirSync(at, 0o755)
    inheritDirectory(staging, directory, below)
  }
  const to = pathIn(staging, target)
  if (found.stat.isSymbolicLink()) symlinkSync(readlinkSync(found.path, 'buffer'), to)
  else if (found.stat.isFile())
    copyFileSync(found.path, to, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL)
  else throw new BerthError('invalid', `layer: hard link ${shown(link)}: ${shown(target)} is no file`)
  copyMetadata(found, to)
}

/** chown clears set-id bits and capabilities, hence this order. */
function copyMetadata({ path, stat }: Found, to: Buffer): void {
  lchownSync(to, stat.uid, stat.gid)
  for (const name of llistxattr(path)) {
    if (isReservedXattr(name)) continue
    const value = lgetxattr(path, name)
    if (value !== undefined) lsetxattr(to, name, value)
  }
  if (!stat.isSymbolicLink()) chmodSync(to, stat.mode & 0o7777)
  lutimesSync(to, stat.atimeMs / 1000, stat.mtimeMs / 1000)
}
