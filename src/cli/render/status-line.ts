import { bytes, cut } from './units.ts'

/** One line at the bottom of a terminal that is redrawn in place; nothing where there is no terminal. */
export class StatusLine {
  readonly #stream: Terminal
  #isDrawn = false

  constructor(stream: Terminal) {
    this.#stream = stream
  }

  /** @param total 0: not known */
  draw(what: string, done: number, total: number): void {
    if (this.#stream.isTTY !== true) return
    const width = (this.#stream.columns ?? 80) - 1
    this.#stream.write(`\r\x1b[K${progressText(what, done, total, width)}`)
    this.#isDrawn = true
  }

  /** Before other output, and at the end. */
  clear(): void {
    if (this.#isDrawn) this.#stream.write('\r\x1b[K')
    this.#isDrawn = false
  }
}

type Terminal = { write(text: string): unknown; readonly isTTY?: boolean; readonly columns?: number }

const BAR = 30

/** `verifying  [=====>    ]  1.2 GiB of 3.4 GiB`, no wider than `width`. */
function progressText(what: string, done: number, total: number, width: number): string {
  if (total <= 0) return cut(`${what}  ${bytes(done)}`, width)
  const full = Math.floor(Math.min(1, done / total) * BAR)
  const bar = `${'='.repeat(full)}${full < BAR ? '>' : ''}`.padEnd(BAR).slice(0, BAR)
  return cut(`${what}  [${bar}]  ${bytes(done)} of ${bytes(total)}`, width)
}
