import { type Digest, hexOf } from '../base/digest.ts'
import type { Image } from '../model/image.ts'
import type { ImageRow } from '../state/images.ts'

export type ImageName = { readonly name: string; readonly kind: 'tag' | 'digest' }

/**
 * The images of the node, in memory, as their rows are on disk. An image is an immutable object, the same one under
 * every name, until its names change.
 */
export class ImageIndex {
  readonly #isPinned: (names: readonly string[]) => boolean
  readonly #images = new Map<Digest, Image>()
  /** Whose each name is. */
  readonly #owners = new Map<string, Digest>()

  constructor(rows: readonly ImageRow[], isPinned: (names: readonly string[]) => boolean) {
    this.#isPinned = isPinned
    for (const row of rows) this.#set(row)
  }

  /** Oldest first. */
  all(): Image[] {
    return [...this.#images.values()]
  }

  get(id: Digest): Image | undefined {
    return this.#images.get(id)
  }

  /** @param name normalised */
  named(name: string): Image | undefined {
    const id = this.#owners.get(name)
    return id === undefined ? undefined : this.#images.get(id)
  }

  /** @param hex the beginning of exactly one id, without `sha256:` */
  withPrefix(hex: string): Image | undefined {
    if (!/^[0-9a-f]{1,64}$/.test(hex)) return undefined
    const found = this.all().filter(image => hexOf(image.id).startsWith(hex))
    return found.length === 1 ? found[0] : undefined
  }

  /** Adds the image unless it is there, and gives it the names, taking them from those that had them. */
  put(row: ImageRow, names: readonly ImageName[]): Image {
    for (const { name } of names) {
      const owner = this.named(name)
      if (owner !== undefined && owner.id !== row.id) this.#set(without(owner, name))
    }
    const image = this.#images.get(row.id) ?? row
    return this.#set({
      ...image,
      repoTags: withNames(image.repoTags, names, 'tag'),
      repoDigests: withNames(image.repoDigests, names, 'digest'),
    })
  }

  /** The image stays, also without any name. */
  deleteName(name: string): void {
    const owner = this.named(name)
    if (owner === undefined) return
    this.#owners.delete(name)
    this.#set(without(owner, name))
  }

  delete(id: Digest): void {
    for (const [name, owner] of this.#owners) if (owner === id) this.#owners.delete(name)
    this.#images.delete(id)
  }

  #set(row: ImageRow): Image {
    const names = [...row.repoTags, ...row.repoDigests]
    const image: Image = { ...row, pinned: this.#isPinned(names) }
    this.#images.set(image.id, image)
    for (const name of names) this.#owners.set(name, image.id)
    return image
  }
}

function without(image: Image, name: string): Image {
  return {
    ...image,
    repoTags: image.repoTags.filter(other => other !== name),
    repoDigests: image.repoDigests.filter(other => other !== name),
  }
}

function withNames(
  before: readonly string[],
  names: readonly ImageName[],
  kind: ImageName['kind'],
): readonly string[] {
  return [...new Set([...before, ...names.filter(name => name.kind === kind).map(({ name }) => name)])]
}
