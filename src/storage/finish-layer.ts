import { lstatSync, mkdirSync, rmSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { effect } from '../base/effects.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import { link, setTimes } from '../os/syscalls.ts'
import { copyMetadata, copyObject } from './copy-object.ts'
import { LayerStack, type StackedObject } from './layer-stack.ts'
import { isWhiteout } from './overlay-marks.ts'
import type { UnpackedLayer } from './snapshots.ts'
import { malformed, shown } from './tar-header.ts'

// About 1 ms of system calls: what the event loop may be held up between two requests.
const OBJECTS_PER_TURN = 50

type Unfinished = Pick<UnpackedLayer, 'implied' | 'whiteouts' | 'deferredLinks'>

/**
 * Gives a layer that was unpacked by itself what it has from the layers below it (topmost first): the targets of
 * hard links, and the metadata of directories that its entries only imply. The result is that of unpacking over those
 * layers.
 */
export async function finishLayer(
  staging: string,
  { implied, whiteouts, deferredLinks }: Unfinished,
  below: readonly string[],
): Promise<void> {
  if (deferredLinks.length > 0) {
    await effect('storage', 'link-below', staging, () => makeLinks(staging, deferredLinks, below))
  }
  if (whiteouts.length > 0) {
    await effect('storage', 'drop-whiteouts', staging, () => dropWhiteouts(staging, whiteouts, below))
  }
  if (below.length > 0 && implied.length > 0) {
    await effect('storage', 'inherit-metadata', staging, () => inherit(staging, implied, below))
  }
}

/**
 * Takes out whiteouts of what is not there: in a directory that no other layer has, or that is opaque, overlayfs does
 * not look for any, and would list them as files that cannot be found.
 */
async function dropWhiteouts(
  staging: string,
  whiteouts: readonly string[],
  below: readonly string[],
): Promise<void> {
  const stack = new LayerStack([staging, ...below])
  for (const [i, path] of whiteouts.entries()) {
    if (i % OBJECTS_PER_TURN === OBJECTS_PER_TURN - 1) await setImmediate()
    if (stack.findBelowTop(path) !== undefined) continue
    await inDirectory(staging, path, async at => rmSync(at))
  }
}

/**
 * A directory that is new here stays as the unpacking made it: root's, with mode 0755. Whether the layer hides what
 * is in the directory (opaque) does not matter for the directory itself, but for those in it.
 */
async function inherit(staging: string, implied: readonly string[], below: readonly string[]): Promise<void> {
  const stack = new LayerStack([staging, ...below])
  for (const [i, path] of implied.entries()) {
    if (i % OBJECTS_PER_TURN === OBJECTS_PER_TURN - 1) await setImmediate()
    const source = stack.findBelowTop(path)
    if (source?.stat.isDirectory() === true) copyMetadata(source, ownDirectory(staging, path).path)
  }
}

async function makeLinks(
  staging: string,
  links: UnpackedLayer['deferredLinks'],
  below: readonly string[],
): Promise<void> {
  for (const [i, { path, target }] of links.entries()) {
    if (i % OBJECTS_PER_TURN === OBJECTS_PER_TURN - 1) await setImmediate()
    try {
      await makeLink(staging, path, target, below)
    } catch (error) {
      const code = error instanceof BerthError ? error.code : 'internal'
      throw new BerthError(code, `hard link ${shown(path)} to ${shown(target)}: ${messageOf(error)}`, error)
    }
  }
}

async function makeLink(
  staging: string,
  path: string,
  target: string,
  below: readonly string[],
): Promise<void> {
  if (ownObject(staging, path) !== undefined) {
    await inDirectory(staging, path, async at => rmSync(at)) // copied up for a link to this link
  }
  if (ownObject(staging, target) === undefined) {
    const visible = new LayerStack([staging, ...below]).findBelowTop(target)
    if (visible !== undefined) await copyUp(staging, target, linkable(visible), below)
  }
  const own = ownObject(staging, target)
  if (own === undefined || isWhiteout(own.stat)) {
    // The layer takes the target's own name away.
    const source = new LayerStack(below).find(target)
    if (source === undefined) throw malformed('the target is neither in this layer nor in those below')
    await inDirectory(staging, path, at => copyObject(linkable(source), at))
  } else {
    await inDirectory(staging, path, async at => link(linkable(own).path, at))
  }
}

function linkable(source: StackedObject): StackedObject {
  if (source.stat.isDirectory()) throw malformed('the target is a directory')
  return source
}

/** With the directories on the way, which the layers below have. */
async function copyUp(
  staging: string,
  path: string,
  source: StackedObject,
  below: readonly string[],
): Promise<void> {
  const stack = new LayerStack(below)
  const parts = path.split('/').slice(0, -1)
  const made: Array<[from: StackedObject, dir: Buffer]> = []
  for (const i of parts.keys()) {
    const prefix = parts.slice(0, i + 1).join('/')
    if (ownObject(staging, prefix) !== undefined) continue
    const from = stack.find(prefix)!
    await inDirectory(staging, prefix, async at => {
      mkdirSync(at, 0o700)
      made.push([from, at])
    })
  }
  await inDirectory(staging, path, at => copyObject(source, at))
  for (const [from, dir] of made.reverse()) copyMetadata(from, dir)
}

/**
 * What the layer itself has at `path`, whiteouts included. The layer may have put a symlink in the place of a
 * directory on the way, and here nothing keeps that from leading out of the layer: hence never by the path alone.
 */
function ownObject(staging: string, path: string): StackedObject | undefined {
  return new LayerStack([staging]).lookUp(path)
}

function ownDirectory(staging: string, path: string): StackedObject {
  const found = ownObject(staging, path)
  if (found?.stat.isDirectory() !== true) throw malformed(`${shown(path)} is not a directory any more`)
  return found
}

/** Makes something in a directory whose time of modification stays what the layer said. */
async function inDirectory(
  staging: string,
  path: string,
  make: (at: Buffer) => Promise<void>,
): Promise<void> {
  const slash = path.lastIndexOf('/')
  const parent = ownDirectory(staging, path.slice(0, Math.max(0, slash)))
  const { mtimeNs } = lstatSync(parent.path, { bigint: true })
  await make(Buffer.concat([parent.path, Buffer.from(`/${path.slice(slash + 1)}`, 'latin1')]))
  setTimes(parent.path, mtimeNs)
}
