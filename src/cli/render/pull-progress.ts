import { bytes, cut } from './units.ts'

export type LayerProgress = {
  readonly digest: string
  readonly state: 'waiting' | 'downloading' | 'unpacking' | 'done' | 'exists'
  /** Received, compressed. */
  readonly bytes: number
  readonly total: number
}

const WORDS: Readonly<Record<LayerProgress['state'], string>> = {
  waiting: 'waiting',
  downloading: 'downloading',
  unpacking: 'unpacking',
  done: 'done',
  exists: 'on the node',
}

const WORD_WIDTH = Math.max(...Object.values(WORDS).map(word => word.length))

/** Twelve digits tell layers apart. */
function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12)
}

/** One line for each layer, none longer than `width`. */
export function progressLines(layers: readonly LayerProgress[], width: number): string[] {
  return layers.map(layer => {
    const size = `${bytes(layer.bytes)} of ${bytes(layer.total)}`
    const amount = layer.state === 'exists' || layer.state === 'done' ? bytes(layer.total) : size
    const head = `${shortDigest(layer.digest)}  ${WORDS[layer.state].padEnd(WORD_WIDTH)}`
    // Brackets, blanks and the amount, which may grow to 22 columns.
    const room = Math.min(40, width - head.length - 4 - 22)
    const bar = room < 10 ? '' : `  [${barOf(layer, room)}]`
    return cut(`${head}${bar}  ${amount}`, width)
  })
}

function barOf(layer: LayerProgress, width: number): string {
  const ended = layer.state === 'done' || layer.state === 'exists'
  const share = ended ? 1 : layer.total > 0 ? Math.min(1, layer.bytes / layer.total) : 0
  const full = Math.floor(share * width)
  return `${'='.repeat(full)}${full < width ? '>' : ''}`.padEnd(width).slice(0, width)
}

/** Lines for a log: the layers whose state is another than before. */
export function progressChanges(before: readonly LayerProgress[], after: readonly LayerProgress[]): string[] {
  return after
    .filter((layer, index) => before[index]?.state !== layer.state && layer.state !== 'waiting')
    .map(layer => `${shortDigest(layer.digest)} ${WORDS[layer.state]} (${bytes(layer.total)})`)
}

/** Redraws the block of lines in place. */
export class ProgressBlock {
  readonly #write: (text: string) => void
  #drawn = 0

  constructor(write: (text: string) => void) {
    this.#write = write
  }

  /** A block that is higher than the terminal cannot be redrawn: the first `rows` lines are. */
  draw(lines: readonly string[], rows: number): void {
    const shown = lines.slice(0, Math.max(1, rows))
    const up = this.#drawn === 0 ? '' : `\x1b[${this.#drawn}A`
    this.#write(`${up}${shown.map(line => `\x1b[2K${line}\n`).join('')}`)
    this.#drawn = shown.length
  }
}
