import { bytes, cut } from './units.ts'

export type LayerProgress = {
  readonly digest: string
  readonly state: 'waiting' | 'downloading' | 'unpacking' | 'committing' | 'done' | 'exists'
  /** Received, and of those unpacked; compressed. */
  readonly bytes: number
  readonly unpacked: number
  readonly total: number
  /** What nothing happens without; '' while it is at work. */
  readonly waitsFor: string
}

const WORDS: Readonly<Record<LayerProgress['state'], string>> = {
  waiting: 'waiting',
  downloading: 'downloading',
  unpacking: 'unpacking',
  committing: 'committing',
  done: 'done',
  exists: 'on the node',
}

const WORD_WIDTH = Math.max(...Object.values(WORDS).map(word => word.length))

/** Twelve digits tell layers apart. */
function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12)
}

/** One line for each layer, none longer than `width`: `=` is unpacked, `-` only downloaded. */
export function progressLines(layers: readonly LayerProgress[], width: number): string[] {
  return layers.map(layer => {
    const size = `${bytes(layer.bytes)} of ${bytes(layer.total)}`
    const amount = hasEnded(layer) ? bytes(layer.total) : size
    const waits = layer.waitsFor === '' ? '' : `, waits for ${layer.waitsFor}`
    const head = `${shortDigest(layer.digest)}  ${WORDS[layer.state].padEnd(WORD_WIDTH)}`
    // Brackets, blanks and the amount, which may grow to 22 columns.
    const room = Math.min(40, width - head.length - 4 - 22)
    const bar = room < 10 ? '' : `  [${barOf(layer, room)}]`
    return cut(`${head}${bar}  ${amount}${waits}`, width)
  })
}

function hasEnded({ state }: LayerProgress): boolean {
  return state === 'done' || state === 'exists'
}

function barOf(layer: LayerProgress, width: number): string {
  const columns = (count: number) => {
    const share = layer.total > 0 ? Math.min(1, count / layer.total) : 0
    return hasEnded(layer) ? width : Math.floor(share * width)
  }
  const unpacked = columns(layer.unpacked)
  const received = Math.max(unpacked, columns(layer.bytes))
  const bar = `${'='.repeat(unpacked)}${'-'.repeat(received - unpacked)}`
  return `${bar}${received < width ? '>' : ''}`.padEnd(width).slice(0, width)
}

/** Lines for a log: the layers whose state is another than before. */
export function progressChanges(before: readonly LayerProgress[], after: readonly LayerProgress[]): string[] {
  return after
    .filter((layer, index) => before[index]?.state !== layer.state && layer.state !== 'waiting')
    .map(layer => `${shortDigest(layer.digest)} ${WORDS[layer.state]} (${bytes(layer.total)})`)
}

/** All layers in one line; `rate` in bytes per second. Those that were on the node do not count. */
export function progressSummary(layers: readonly LayerProgress[], rate: number): string {
  const fetched = layers.filter(layer => layer.state !== 'exists')
  const sum = (of: (layer: LayerProgress) => number) => fetched.reduce((total, layer) => total + of(layer), 0)
  const received = sum(layer => (hasEnded(layer) ? layer.total : layer.bytes))
  const total = sum(layer => layer.total)
  const ended = layers.filter(hasEnded).length
  const speed = received < total ? `, ${bytes(rate)}/s` : ''
  return `${ended} of ${layers.length} layers, ${bytes(received)} of ${bytes(total)}${speed}${waiting(fetched)}`
}

/** What most of the layers at work wait for, if all of them wait. */
function waiting(layers: readonly LayerProgress[]): string {
  const active = layers.filter(layer => layer.state !== 'waiting' && !hasEnded(layer))
  if (active.length === 0 || active.some(layer => layer.waitsFor === '')) return ''
  const counts = new Map<string, number>()
  for (const { waitsFor } of active) counts.set(waitsFor, (counts.get(waitsFor) ?? 0) + 1)
  const [most] = [...counts].toSorted(([, one], [, other]) => other - one)
  return `, waits for ${most?.[0]}`
}

/** Bytes per second over the last moments. */
export class RateMeter {
  readonly #spanMs: number
  readonly #samples: Array<readonly [ms: number, bytes: number]> = []

  constructor(spanMs = 3000) {
    this.#spanMs = spanMs
  }

  /** @param total so far, @param now ms */
  add(total: number, now: number): void {
    this.#samples.push([now, total])
    // The one before the span stays, to measure from.
    while (this.#samples.length > 2 && this.#samples[1]![0] < now - this.#spanMs) this.#samples.shift()
  }

  get perSecond(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)]
    if (first === undefined || last === undefined || last[0] === first[0]) return 0
    return Math.max(0, ((last[1] - first[1]) * 1000) / (last[0] - first[0]))
  }
}

/** Redraws the block of lines in place. */
export class ProgressBlock {
  readonly #write: (text: string) => void
  #drawn = 0

  constructor(write: (text: string) => void) {
    this.#write = write
  }

  /** A block that is higher than the terminal cannot be redrawn: the last `rows` lines are. */
  draw(lines: readonly string[], rows: number): void {
    const shown = lines.slice(-Math.max(1, rows))
    const up = this.#drawn === 0 ? '' : `\x1b[${this.#drawn}A`
    this.#write(`${up}${shown.map(line => `\x1b[2K${line}\n`).join('')}`)
    this.#drawn = shown.length
  }
}
