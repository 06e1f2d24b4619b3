import { printable } from './units.ts'

type Layer = {
  readonly diff_id: string
  readonly directory: string
  readonly images: readonly string[]
  readonly state: string | number
  readonly differences: ReadonlyArray<{ readonly path: Buffer; readonly what: string }>
  readonly difference_count: number
  readonly note: string
}

const WORDS: Readonly<Record<string, string>> = {
  WHOLE: 'whole',
  UNRECORDED:
    'cannot be verified: it was unpacked by an earlier version; remove its images and pull them again',
  DAMAGED: 'DAMAGED',
  REPAIRED: 'was damaged, and is repaired',
  FAILED: 'DAMAGED, and could not be repaired',
}

/** What a verification says about one layer: a line, and one for each difference. */
export function verifiedText(layer: Layer): string {
  const { diff_id: digest, directory, images, state, differences, difference_count: count, note } = layer
  const id = digest.replace(/^sha256:/, '').slice(0, 12)
  const whose = images.length === 0 ? 'no image' : images.join(', ')
  const lines = [`layer ${id} (directory ${directory}, of ${whose}): ${WORDS[state] ?? state}`]
  for (const { path, what } of differences) lines.push(`  ${path.length === 0 ? '' : `/${path} `}${what}`)
  if (count > differences.length) lines.push(`  and ${count - differences.length} more differences`)
  if (note !== '') lines.push(`  ${note}`)
  return lines.map(line => `${printable(line)}\n`).join('')
}
