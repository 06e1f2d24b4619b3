import { closeSync, constants, createReadStream, lstatSync, openSync, readlinkSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { effect } from '../base/effects.ts'
import { messageOf } from '../base/errors.ts'
import { lgetxattr, llistxattr, lsetxattr } from '../os/syscalls.ts'
import { digestOfRecord, type MadeObject, RecordWriter } from './layer-record.ts'
import { isReservedXattr, lstatIfThere, pathIn } from './overlay-marks.ts'
import type { LayerSeal, UnpackedLayer } from './snapshots.ts'

/** In overlayfs' own name space, which it hides from containers; it knows nothing by this name. */
const SEAL = 'trusted.overlay.berth.record'

const OBJECTS_PER_TURN = 50

/**
 * Completes the record of a finished layer with what the layers below made of it, and marks the layer's directory as
 * the one that the record is about.
 */
export async function sealLayer(
  staging: string,
  record: string,
  layer: UnpackedLayer,
  hasLayersBelow: boolean,
): Promise<LayerSeal> {
  return effect('storage', 'seal', staging, async () => {
    if (hasLayersBelow || layer.whiteouts.length > 0) await recordCommit(staging, record, layer)
    const digest = await digestOfRecord(record)
    lsetxattr(staging, SEAL, Buffer.from(digest))
    return { record: digest, mtime: mtimeOf(staging) }
  })
}

/**
 * What of a layer can be told from its root directory alone: that it is there, is this layer and not another one, and
 * that nothing was added to it or taken from it at the top.
 * @returns what is wrong
 */
export function checkSeal(dir: string, seal: LayerSeal | undefined): string | undefined {
  try {
    return differenceFrom(dir, seal)
  } catch (error) {
    return `its directory cannot be read: ${messageOf(error)}` // a damaged file system: EIO, EUCLEAN
  }
}

function differenceFrom(dir: string, seal: LayerSeal | undefined): string | undefined {
  const stat = lstatIfThere(dir)
  if (stat === undefined) return 'its directory is missing'
  if (!stat.isDirectory()) return 'there is something else in the place of its directory'
  if (seal === undefined) return undefined // unpacked by a version that kept no records
  const found = lgetxattr(dir, SEAL)?.toString('latin1')
  if (found === undefined) return 'its directory does not bear its mark: it was replaced or is empty'
  if (found !== seal.record) return 'its directory is that of another layer'
  if (mtimeOf(dir) !== seal.mtime) return 'its top directory was changed'
  return undefined
}

function mtimeOf(dir: string): bigint {
  return lstatSync(dir, { bigint: true }).mtimeNs
}

async function recordCommit(staging: string, record: string, layer: UnpackedLayer): Promise<void> {
  const { O_WRONLY, O_APPEND, O_NOFOLLOW } = constants
  const fd = openSync(record, O_WRONLY | O_APPEND | O_NOFOLLOW)
  try {
    const writer = RecordWriter.continue(fd)
    let objects = 0
    for (const path of layer.whiteouts) {
      if (++objects % OBJECTS_PER_TURN === 0) await setImmediate()
      if (lstatIfThere(pathIn(staging, path)) === undefined) writer.dropped(path)
    }
    for (const path of touched(layer)) {
      if (++objects % OBJECTS_PER_TURN === 0) await setImmediate()
      const object = await describe(staging, path)
      if (object !== undefined) writer.made(object)
    }
    writer.flush()
  } finally {
    closeSync(fd)
  }
}

/** Whose state on disk is not, or not only, the unpacking's work. */
function touched({ implied, deferredLinks }: UnpackedLayer): Set<string> {
  const paths = new Set(implied)
  for (const { path, target } of deferredLinks) {
    paths.add(path)
    const parts = target.split('/')
    for (const i of parts.keys()) paths.add(parts.slice(0, i + 1).join('/'))
  }
  return paths
}

async function describe(staging: string, path: string): Promise<MadeObject | undefined> {
  const at = pathIn(staging, path)
  const stat = lstatIfThere(at)
  if (stat === undefined) return undefined
  const xattrs = llistxattr(at).filter(name => !isReservedXattr(name))
  return {
    path,
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    mtimeMs: stat.mtimeMs,
    size: stat.isFile() ? stat.size : 0,
    rdev: stat.rdev,
    ...(stat.isSymbolicLink() ? { linkName: readlinkSync(at, 'latin1') } : {}),
    ...(stat.isFile() ? { crc: await crcOf(at) } : {}),
    xattrs: Object.fromEntries(
      xattrs.map(name => [name, (lgetxattr(at, name) ?? Buffer.alloc(0)).toString('base64')]),
    ),
  }
}

async function crcOf(path: Buffer): Promise<number> {
  let crc = 0
  for await (const chunk of createReadStream(path)) crc = crc32(chunk as Buffer, crc)
  return crc
}
