import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

/**
 * A file or directory that ships with the program (`proto`), found in the nearest directory above this module that
 * holds it: the repository's root, whether from its sources or from the bundle in dist/, or an installation.
 */
export function installedPath(name: string, from: string = import.meta.dirname): string {
  for (let directory = from; ; directory = dirname(directory)) {
    const candidate = join(directory, name)
    if (existsSync(candidate)) return candidate
    if (directory === dirname(directory))
      throw new Error(`the installation is incomplete: no ${name} above ${from}`)
  }
}
