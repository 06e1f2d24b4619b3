import { StringDecoder } from 'node:string_decoder'
import type { TerminalSize } from '../runtime/channels.ts'

/**
 * Characters that are looked at in one go: an announcement has some thirty. Of more that came together only the end
 * matters, since the last size is the one that holds.
 */
const MAX_LENGTH = 1024

/**
 * Terminal sizes out of a stream of JSON objects `{"Width":80,"Height":24}`, run together and cut anywhere. What is
 * none is skipped: a wrong size spoils a picture, not a session.
 */
export class ResizeReader {
  readonly #decoder = new StringDecoder('utf8')
  #text = ''

  /** The sizes that are complete with this chunk, in order, the last ones of many; both numbers are from 1 to 65535. */
  push(chunk: Buffer): TerminalSize[] {
    if (chunk.length > MAX_LENGTH) this.#text = ''
    this.#text += this.#decoder.write(chunk.subarray(-MAX_LENGTH))
    const sizes: TerminalSize[] = []
    for (let end = this.#text.indexOf('}'); end >= 0; end = this.#text.indexOf('}')) {
      const size = parseSize(this.#text.slice(this.#text.lastIndexOf('{', end), end + 1))
      this.#text = this.#text.slice(end + 1)
      if (size !== undefined) sizes.push(size)
    }
    if (this.#text.length > MAX_LENGTH) this.#text = ''
    return sizes
  }
}

function parseSize(text: string): TerminalSize | undefined {
  // An exception takes as long as a thousand characters: not for everything that a client may send.
  if (!text.includes('"Width"') || !text.includes('"Height"')) return undefined
  try {
    const { Width: width, Height: height } = JSON.parse(text)
    return isCells(width) && isCells(height) ? { width, height } : undefined
  } catch {
    return undefined
  }
}

/** uint16; 0 is what a client says that has no terminal. */
function isCells(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 0xffff
}
