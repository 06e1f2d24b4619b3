import { bytes, instant, printable } from './units.ts'

type Row = {
  readonly id: string
  readonly repo_tags: readonly string[]
  readonly repo_digests: readonly string[]
  readonly disk: string
  readonly pinned: boolean
  readonly created_at: string
  readonly containers: number
  readonly damage: string
}

/** One line for each name, or for each image without one. */
export function imageTable(images: readonly Row[]): string {
  const rows = images.flatMap(image => {
    const names = image.repo_tags.length > 0 ? image.repo_tags : [image.repo_digests[0] ?? '<none>']
    const { id, disk, created_at: created } = image
    const rest = [
      id.replace(/^sha256:/, '').slice(0, 12),
      bytes(Number(disk)),
      String(image.containers),
      instant(BigInt(created)).slice(0, 19),
      [image.pinned ? 'pinned' : '', image.damage === '' ? '' : `damaged: ${image.damage}`]
        .filter(Boolean)
        .join(', '),
    ]
    return names.map(name => [name, ...rest])
  })
  return columns([['NAME', 'ID', 'ON DISK', 'CONTAINERS', 'SINCE (UTC)', 'STATE'], ...rows])
}

/** Left-aligned, two blanks apart. */
function columns(rows: ReadonlyArray<readonly string[]>): string {
  const plain = rows.map(row => row.map(printable))
  const widths = (plain[0] ?? []).map((_, at) => Math.max(...plain.map(row => row[at]?.length ?? 0)))
  return plain
    .map(
      row =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}
