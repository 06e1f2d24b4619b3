import { BerthError } from '../base/errors.ts'
import { malformed, shown } from './tar-header.ts'

const WHITEOUT = '.wh.'
const WHITEOUT_META = '.wh..wh.'
const OPAQUE = '.wh..wh..opq'

// Whoever handles the layer from outside puts its directory in front, and Linux ends paths at 4096 bytes.
const MAX_PATH = 3072

/** What an entry's name asks for (OCI image spec, "Layer Filesystem Changeset", whiteouts). Parts are plain names. */
export type EntryPath =
  | { readonly kind: 'object'; readonly parts: readonly string[] }
  /** `parts` does not exist in the layers below. */
  | { readonly kind: 'whiteout'; readonly parts: readonly string[] }
  /** Nothing of the layers below is in the directory `parts`. */
  | { readonly kind: 'opaque'; readonly parts: readonly string[] }
  /** Bookkeeping of AUFS, which older builders left in. */
  | { readonly kind: 'ignored' }

/**
 * @param name bytes as latin1 text; absolute ones mean the layer's root
 * @throws BerthError invalid for `..` and whiteouts of nothing, exhausted beyond the limits
 */
export function parseEntryPath(name: string, maxDepth: number): EntryPath {
  const parts = splitPath(name)
  checkPath(parts, maxDepth)
  const at = parts.findIndex(part => part.startsWith(WHITEOUT))
  if (at < 0) return { kind: 'object', parts }
  const marker = parts[at]!
  const isLast = at === parts.length - 1
  if (marker === OPAQUE && isLast) return { kind: 'opaque', parts: parts.slice(0, at) }
  if (marker.startsWith(WHITEOUT_META)) return { kind: 'ignored' }
  const hidden = marker.slice(WHITEOUT.length)
  if (!isLast || hidden === '' || hidden === '.' || hidden === '..') {
    throw malformed(`${shown(name)}: expected a whiteout to name one object and to have nothing below it`)
  }
  return { kind: 'whiteout', parts: [...parts.slice(0, at), hidden] }
}

/** Components of a path without empty ones and dots. @throws BerthError invalid for `..` */
export function splitPath(path: string): string[] {
  const parts = path.split('/').filter(part => part !== '' && part !== '.')
  if (parts.includes('..')) throw malformed(`${shown(path)}: ".." is not allowed in a layer`)
  return parts
}

/** @throws BerthError exhausted */
export function checkPath(parts: readonly string[], maxDepth: number): void {
  const length = parts.reduce((sum, part) => sum + part.length + 1, 0)
  if (parts.length > maxDepth || length > MAX_PATH) {
    const limits = `at most ${maxDepth} components and ${MAX_PATH} bytes are allowed`
    throw new BerthError(
      'exhausted',
      `${shown(parts.join('/'))}: path of ${parts.length} components: ${limits}`,
    )
  }
}
