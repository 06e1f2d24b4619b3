import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './sources.ts'

/** Rows of the table under "Layers" in ARCHITECTURE.md: `os` → 3, `main.ts` → 11. */
export function readLayers(): Map<string, number> {
  return parseLayers(readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8'))
}

export function parseLayers(markdown: string): Map<string, number> {
  const section = /^## Layers$(.*?)(?=^## |$(?![\s\S]))/ms.exec(markdown)?.[1] ?? ''
  const rows = section.matchAll(/^\| *(\d+) *\| *`([^`/]+)\/?` *\|/gm)
  return new Map([...rows].map(([, row, folder]) => [folder!, Number(row)]))
}

/** The entry of the table that a file belongs to: `src/os/cgroup/v1.ts` → `os`, `src/main.ts` → `main.ts`. */
export function folderOf(path: string): string {
  return path.split('/')[1]!
}

/** Why `from` may not import `to` (both below src/), or undefined. */
export function violation(layers: ReadonlyMap<string, number>, from: string, to: string): string | undefined {
  const [fromFolder, toFolder] = [folderOf(from), folderOf(to)]
  if (fromFolder === toFolder) return undefined
  const [fromRow, toRow] = [layers.get(fromFolder), layers.get(toFolder)]
  if (fromRow === undefined) return `${fromFolder} is not in the table of ARCHITECTURE.md`
  if (toRow === undefined) return `${toFolder} is not in the table of ARCHITECTURE.md`
  if (toRow < fromRow) return undefined
  return `${from} (row ${fromRow}) imports ${to} (row ${toRow})`
}

/** The first circle among `imports` (file → files), as a path that ends where it began, or undefined. */
export function findCircle(imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>()
  const visit = (file: string, trail: string[]): string[] | undefined => {
    const seenAt = trail.indexOf(file)
    if (seenAt >= 0) return [...trail.slice(seenAt), file]
    if (done.has(file)) return undefined
    for (const next of imports.get(file) ?? []) {
      const circle = visit(next, [...trail, file])
      if (circle !== undefined) return circle
    }
    done.add(file)
    return undefined
  }
  for (const file of imports.keys()) {
    const circle = visit(file, [])
    if (circle !== undefined) return circle
  }
  return undefined
}
