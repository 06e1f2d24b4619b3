import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { BerthError, errnoOf, messageOf } from '../base/errors.ts'

/** Configuration is typed by people; a longer file is something else. */
const MAX_BYTES = 1 << 20

/**
 * A configuration file of the node, undefined if there is none.
 *
 * @throws BerthError unknown, naming the file
 */
export function readText(file: string): string | undefined {
  try {
    const stat = statSync(file)
    if (!stat.isFile()) throw new Error('not a regular file')
    if (stat.size > MAX_BYTES) throw new Error(`longer than ${MAX_BYTES} bytes`)
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw new BerthError('unknown', `${file}: cannot be read: ${messageOf(error)}`, error)
  }
}

/** Paths of the directory's entries that end in one of `endings`, in lexical order; none if there is no directory. */
export function filesIn(directory: string, ...endings: readonly string[]): string[] {
  try {
    return readdirSync(directory)
      .filter(name => endings.some(ending => name.endsWith(ending)))
      .sort()
      .map(name => join(directory, name))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return []
    throw new BerthError('unknown', `${directory}: cannot be read: ${messageOf(error)}`, error)
  }
}
