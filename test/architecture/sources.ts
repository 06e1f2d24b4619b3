import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

export const root = join(import.meta.dirname, '../..')

export type Source = {
  /** From the root of the repository: `src/os/spawn.ts`. */
  readonly path: string
  readonly text: string
  /** What it imports: package names and `node:` modules as written, files as paths from the root. */
  readonly imports: readonly string[]
}

/** Every TypeScript file below `folder`, without generated ones. */
export function sourcesIn(folder: string): Source[] {
  return filesIn(folder)
    .filter(path => path.endsWith('.ts') && !path.startsWith('src/cri/generated/'))
    .map(path => {
      const text = readFileSync(join(root, path), 'utf8')
      return { path, text, imports: importsOf(path, text) }
    })
}

export function isTest(source: Source): boolean {
  return source.path.endsWith('.test.ts')
}

/** Paths from the root of the repository. */
export function filesIn(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => relative(root, join(entry.parentPath, entry.name)))
    .sort()
}

// The formatter puts import statements at the start of a line, which is what tells them from text about them.
const STATIC = /^(?:import|export)\s(?:[^'"`;=]*?\sfrom\s)?\s*'([^']+)'/gm
const DYNAMIC = /\bimport\(\s*'([^']+)'\s*\)/g

export function importsOf(path: string, text: string): string[] {
  const names = [...text.matchAll(STATIC), ...text.matchAll(DYNAMIC)].map(match => match[1]!)
  return names.map(name => (name.startsWith('.') ? join(dirname(path), name) : name))
}
