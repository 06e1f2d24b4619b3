import type { Stats } from 'node:fs'
import { isOpaque, isWhiteout, lstatIfThere } from './overlay-marks.ts'

/** Paths are absolute, bytes as Buffer. */
export type StackedObject = { readonly path: Buffer; readonly stat: Stats }

// Directories come in the order of an archive, so those asked for next to one another lie together.
const MAX_REMEMBERED = 10_000

/**
 * What layers show together, as overlayfs would merge them. Symlinks are objects like others: nothing is ever looked
 * for behind one. Paths are relative, without dots, bytes as latin1 text; '' is the root.
 */
export class LayerStack {
  /** For a directory: the layers' directories that merge into it, topmost first. */
  readonly #merged = new Map<string, readonly string[]>()
  readonly #roots: readonly string[]

  /** @param layers absolute paths, topmost first; they must not change meanwhile */
  constructor(layers: readonly string[]) {
    this.#roots = layers.map(layer => Buffer.from(layer).toString('latin1'))
  }

  find(path: string): StackedObject | undefined {
    return withoutWhiteout(this.lookUp(path))
  }

  /** As `find`, but a whiteout is an object too. */
  lookUp(path: string): StackedObject | undefined {
    return first(this.#candidates(path))
  }

  /** What would show if the topmost layer did not have this very object; its parents count. */
  findBelowTop(path: string): StackedObject | undefined {
    const top = this.#roots[0]
    const own = path === '' ? top : `${top}/${path}`
    return withoutWhiteout(first(this.#candidates(path).filter(candidate => candidate !== own)))
  }

  /** Where the layers have `path`, if they do and if it shows. */
  #candidates(path: string): readonly string[] {
    if (path === '') return this.#roots
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    return this.#directories(path.slice(0, Math.max(0, slash))).map(dir => `${dir}/${name}`)
  }

  #directories(path: string): readonly string[] {
    const known = this.#merged.get(path)
    if (known !== undefined) return known
    const found: string[] = []
    for (const candidate of this.#candidates(path)) {
      const stat = lstatIfThere(bytes(candidate))
      if (stat === undefined) continue
      if (!stat.isDirectory()) break
      found.push(candidate)
      if (isOpaque(bytes(candidate))) break
    }
    if (this.#merged.size >= MAX_REMEMBERED) this.#merged.clear()
    this.#merged.set(path, found)
    return found
  }
}

function first(candidates: readonly string[]): StackedObject | undefined {
  for (const candidate of candidates) {
    const path = bytes(candidate)
    const stat = lstatIfThere(path)
    if (stat !== undefined) return { path, stat }
  }
  return undefined
}

function withoutWhiteout(found: StackedObject | undefined): StackedObject | undefined {
  return found === undefined || isWhiteout(found.stat) ? undefined : found
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}
