import { nowNs } from '../base/clock.ts'
import type { Image } from '../model/image.ts'
import { type FileSystemUsage, fsUsage } from '../os/files.ts'
import { findGarbage, type Garbage } from './collect-layers.ts'
import type { ImageContext } from './image-context.ts'

/** When images that have a name are deleted without being asked to; kubelet's own rules, by kubelet's names. */
export type ImageGcRules = {
  /** ms between two looks for garbage; 0: none but those that follow a removal. */
  readonly intervalMs: number
  /** Percent of the file system in use from which on images are deleted; 0: never. */
  readonly highThreshold: number
  /** Down to which. */
  readonly lowThreshold: number
  /** ms that an image must not have been used for. */
  readonly minimumAgeMs: number
}

export type CollectedGarbage = Garbage & {
  /** With all their names, least recently used first. */
  readonly images: readonly Image[]
}

/**
 * Deletes what nothing needs, or only says what that is.
 * @param prune images that no container stands on, too, unless they are pinned
 */
export function collectImages(context: ImageContext, prune: boolean, dryRun: boolean): CollectedGarbage {
  const images = prune ? unusedImages(context, 0) : []
  if (dryRun) return { images, ...findGarbage(context.db, context.leases, images) }
  return { images, ...deleteImages(context, images, 'an unused image is deleted, as asked for') }
}

/**
 * Makes room when the file system is fuller than the rules allow, once what was deleted before is off the disk: else it
 * would count twice.
 */
export async function makeRoom(
  context: ImageContext,
  rules: ImageGcRules,
  usage: (path: string) => FileSystemUsage = fsUsage,
): Promise<void> {
  if (rules.highThreshold === 0) return
  await context.snapshots.emptied()
  if (context.closing.aborted) return
  const { bytesTotal, bytesFree } = usage(context.snapshots.layerPath('.'))
  const used = bytesTotal - bytesFree
  if (used < (bytesTotal * rules.highThreshold) / 100) return
  const wanted = used - (bytesTotal * rules.lowThreshold) / 100
  const { doomed, freed } = fewest(context, unusedImages(context, rules.minimumAgeMs), wanted)
  deleteImages(context, doomed, 'the file system is too full: an unused image is deleted')
  if (freed < wanted) {
    context.log.warn(
      { missingBytes: Math.round(wanted - freed), deleted: doomed.length },
      'the file system is too full, and no more images can be deleted',
    )
  }
}

/**
 * As many from the beginning as are needed, or all if they are not enough. More images never free less, so halving
 * finds them: to look at one after the other would hold up the daemon for a second where there are 200.
 */
function fewest(
  context: ImageContext,
  images: readonly Image[],
  wanted: number,
): { readonly doomed: readonly Image[]; readonly freed: number } {
  let [few, many] = [0, images.length]
  while (few < many) {
    const middle = Math.floor((few + many) / 2)
    if (sizeWithout(context, images.slice(0, middle)) < wanted) few = middle + 1
    else many = middle
  }
  const doomed = images.slice(0, few)
  return { doomed, freed: sizeWithout(context, doomed) }
}

/** Bytes that are free once these images are gone. */
function sizeWithout({ db, leases }: ImageContext, images: readonly Image[]): number {
  const { layers } = findGarbage(db, leases, images)
  return layers.reduce((sum, { size }) => sum + size, 0)
}

/** Neither pinned nor under a container, least recently used first. */
function unusedImages({ db, index }: ImageContext, minimumAgeMs: number): Image[] {
  const youngest = nowNs() - BigInt(minimumAgeMs) * 1_000_000n
  const lastUse = (image: Image) => {
    const used = db.read.images.usedAt(image.id)
    return used === 0n ? image.createdAt : used
  }
  return index
    .all()
    .filter(image => !image.pinned && db.read.images.containersOf(image.id).length === 0)
    .map(image => ({ image, time: lastUse(image) }))
    .filter(({ time }) => time <= youngest)
    .sort((a, b) => (a.time < b.time ? -1 : 1))
    .map(({ image }) => image)
}

function deleteImages({ forget, log }: ImageContext, images: readonly Image[], message: string): Garbage {
  const garbage = forget(images)
  for (const { id, repoTags } of images) log.info({ imageId: id, names: repoTags }, message)
  return garbage
}
