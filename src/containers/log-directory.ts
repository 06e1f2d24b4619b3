import { existsSync, lstatSync } from 'node:fs'
import { join } from 'node:path'
import { invalid } from '../base/errors.ts'
import { ensureDir } from '../os/files.ts'

/** One that exists is the client's: its mode stays. */
export function makeLogDirectory(path: string): void {
  if (!existsSync(path)) ensureDir(path, 0o755)
}

/**
 * Makes the directories of a log below the pod's. The monitor follows symlinks, and writes as root what the container
 * prints: whoever can write into the pod's directory must not choose where (CVE-2025-0750, CVE-2026-53489).
 * @param directory the pod's
 * @param path relative and clean
 * @throws BerthError invalid if something else than a directory is on the way, or than a file at the end
 */
export function prepareLog(directory: string, path: string): void {
  makeLogDirectory(directory)
  const names = path.split('/')
  for (const [index] of names.entries()) {
    const at = join(directory, ...names.slice(0, index + 1))
    const stat = lstatSync(at, { throwIfNoEntry: false })
    const isLast = index === names.length - 1
    if (stat === undefined) {
      if (!isLast) ensureDir(at, 0o755)
    } else if (isLast ? !stat.isFile() : !stat.isDirectory()) {
      throw invalid('config.log_path', `${at} is there and is no ${isLast ? 'file' : 'directory'}`)
    }
  }
}
