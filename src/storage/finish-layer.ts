import { mkdirSync, rmSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { effect } from '../base/effects.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import { link } from '../os/syscalls.ts'
import { copyMetadata, copyObject, setModified } from './copy-object.ts'
import { LayerStack, type StackedObject } from './layer-stack.ts'
import { isWhiteout, lstatIfThere, pathIn } from './overlay-marks.ts'
import type { UnpackedLayer } from './snapshots.ts'
import { malformed, shown } from './tar-header.ts'

// About 1 ms of system calls: what the event loop may be held up between two requests.
const OBJECTS_PER_TURN = 50

type Unfinished = Pick<UnpackedLayer, 'implied' | 'deferredLinks'>

/**
 * Gives a layer that was unpacked by itself what it has from the layers below it (topmost first): the metadata of
 * directories that its entries only imply, and the targets of hard links. The result is that of unpacking over those
 * layers.
 */
export async function finishLayer(
  staging: string,
  { implied, deferredLinks }: Unfinished,
  below: readonly string[],
): Promise<void> {
  if (deferredLinks.length > 0) {
    await effect('storage', 'link-below', staging, () => makeLinks(staging, deferredLinks, below))
  }
  if (below.length > 0 && implied.length > 0) {
    await effect('storage', 'inherit-metadata', staging, () => inherit(staging, implied, below))
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
    if (source?.stat.isDirectory() === true) copyMetadata(source, pathIn(staging, path))
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
  const at = pathIn(staging, path)
  if (lstatIfThere(at) !== undefined) rmSync(at) // copied up for a link to this link
  const present = lstatIfThere(pathIn(staging, target))
  if (present === undefined) {
    const visible = new LayerStack([staging, ...below]).findBelowTop(target)
    if (visible !== undefined) await copyUp(staging, target, linkable(visible), below)
  }
  const own = lstatIfThere(pathIn(staging, target))
  if (own === undefined || isWhiteout(own)) {
    // The layer takes the target's own name away.
    const source = new LayerStack(below).find(target)
    if (source === undefined) throw malformed('the target is neither in this layer nor in those below')
    await inDirectory(staging, path, () => copyObject(linkable(source), at))
  } else {
    if (own.isDirectory()) throw malformed('the target is a directory')
    await inDirectory(staging, path, async () => link(pathIn(staging, target), at))
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
  const made: Array<[path: Buffer, from: StackedObject]> = []
  for (const i of parts.keys()) {
    const prefix = parts.slice(0, i + 1).join('/')
    const dir = pathIn(staging, prefix)
    if (lstatIfThere(dir) !== undefined) continue
    const from = stack.find(prefix)!
    await inDirectory(staging, prefix, async () => mkdirSync(dir, 0o700))
    made.push([dir, from])
  }
  await inDirectory(staging, path, () => copyObject(source, pathIn(staging, path)))
  for (const [dir, from] of made.reverse()) copyMetadata(from, dir)
}

/** Makes something in a directory whose time of modification stays what the layer said. */
async function inDirectory(staging: string, path: string, make: () => Promise<void>): Promise<void> {
  const parent = pathIn(staging, path.slice(0, Math.max(0, path.lastIndexOf('/'))))
  const before = lstatIfThere(parent)!
  await make()
  setModified(parent, before)
}
