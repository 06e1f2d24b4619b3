import { createReadStream, readdirSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, messageOf } from '../base/errors.ts'
import { packDirectory } from '../storage/pack-files.ts'
import type { ImageContext } from './image-context.ts'
import { importImages } from './import-images.ts'

/**
 * Imports the archives and OCI layouts in a directory, one after the other: those that were not imported before, that
 * changed since, or whose images are gone. One that cannot be imported is logged and keeps none of the others back.
 */
export async function preloadImages(
  context: ImageContext,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  for (const name of namesIn(context, directory)) {
    if (signal.aborted) return
    const path = join(directory, name)
    try {
      const stat = statSync(path)
      if (stat.isFile() || stat.isDirectory()) await preload(context, path, stat, signal)
    } catch (error) {
      if (signal.aborted) return
      context.log.error({ path, error: messageOf(error) }, 'an image archive could not be preloaded')
    }
  }
}

/** Hidden files are on their way, or somebody's own. */
function namesIn({ log }: ImageContext, directory: string): string[] {
  try {
    return readdirSync(directory)
      .filter(name => !name.startsWith('.'))
      .sort()
  } catch (error) {
    const isMissing = errnoOf(error) === 'ENOENT'
    log[isMissing ? 'warn' : 'error']({ directory, error: messageOf(error) }, 'no images are preloaded')
    return []
  }
}

async function preload(context: ImageContext, path: string, stat: Stats, signal: AbortSignal): Promise<void> {
  const { db, index } = context
  const version = versionOf(path, stat)
  const before = db.read.images.preloaded(path)
  if (before?.version === version && before.images.every(id => index.get(id) !== undefined)) return
  const source = stat.isDirectory()
    ? packDirectory(path)
    : createReadStream(path, { highWaterMark: 256 * 1024 })
  const images: string[] = []
  for await (const event of importImages(context, source, '', signal)) {
    if (event.kind === 'image') images.push(event.imported.image.id)
  }
  db.transact('archive preloaded', tx => tx.images.setPreloaded(path, version, images))
}

/** A layout changes with its list of contents. */
function versionOf(path: string, stat: Stats): string {
  const { size, mtimeMs } = stat.isDirectory() ? statSync(join(path, 'index.json')) : stat
  return `${size} ${mtimeMs}`
}
