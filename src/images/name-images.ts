import { BerthError, invalid, notFound } from '../base/errors.ts'
import type { Image } from '../model/image.ts'
import { parseReference } from '../registry/reference.ts'
import type { ImageContext } from './image-context.ts'

/**
 * Gives an image another name, taking it from the image that had it.
 * @returns the name as it is recorded
 * @throws BerthError invalid for a malformed name or one with a digest
 */
export function tagImage({ db, index }: ImageContext, image: Image, name: string): string {
  const reference = parseReference(name)
  if (reference.digest !== undefined)
    throw invalid('name', 'expected a name with a tag; a digest cannot be given')
  const text = `${reference}`
  if (index.named(text)?.id === image.id) return text
  db.transact('image tagged', tx => tx.images.setName(text, 'tag', image.id))
  index.put(image, [{ name: text, kind: 'tag' }])
  return text
}

export type RemovedImages = {
  /** Ids of images, or names with `namesOnly`. */
  readonly removed: readonly string[]
  /** Ids of containers that go on with what was removed. */
  readonly containers: readonly string[]
}

/**
 * Removes images with all their names, as RemoveImage of the CRI does; or with `namesOnly` names alone. Containers keep
 * what they stand on.
 * @throws BerthError not-found if one of them is not here; then nothing is removed
 */
export async function removeImages(
  context: ImageContext,
  references: readonly string[],
  namesOnly: boolean,
): Promise<RemovedImages> {
  const { db, log } = context
  const found = references.map(reference => {
    const image = context.find(reference)
    if (image === undefined) throw notFound('image', reference)
    return { reference, image }
  })
  if (namesOnly)
    return { removed: found.map(each => removeName(context, each.image, each.reference)), containers: [] }
  const images = [...new Set(found.map(({ image }) => image))]
  const containers = new Set(images.flatMap(({ id }) => db.read.images.containersOf(id)))
  context.forget(images)
  for (const { id, repoTags } of images) log.info({ imageId: id, names: repoTags }, 'image removed')
  return { removed: images.map(({ id }) => id), containers: [...containers] }
}

function removeName({ db, index }: ImageContext, image: Image, reference: string): string {
  const names = [...image.repoTags, ...image.repoDigests]
  const name = names.find(each => each === reference) ?? normalised(names, reference)
  if (name === undefined) {
    throw new BerthError(
      'invalid',
      `${JSON.stringify(reference)} is no name of an image; its names are ${names.join(', ') || 'none'}`,
    )
  }
  db.transact('image name removed', tx => tx.images.deleteName(name))
  index.deleteName(name)
  return name
}

function normalised(names: readonly string[], reference: string): string | undefined {
  try {
    const text = `${parseReference(reference)}`
    return names.find(name => name === text)
  } catch {
    return undefined // an id
  }
}
