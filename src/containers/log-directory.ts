import { existsSync } from 'node:fs'
import { ensureDir } from '../os/files.ts'

/** One that exists is the client's: its mode stays. */
export function makeLogDirectory(path: string): void {
  if (!existsSync(path)) ensureDir(path, 0o755)
}
