import { BerthError } from '../base/errors.ts'

const FRAME_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])

/** The first four bytes of a skippable frame are 0x184D2A50 to 0x184D2A5F, little endian. */
function isSkippableMagic(bytes: Buffer): boolean {
  return (bytes[0]! & 0xf0) === 0x50 && bytes[1] === 0x2a && bytes[2] === 0x4d && bytes[3] === 0x18
}

export function isZstdMagic(bytes: Buffer): boolean {
  return FRAME_MAGIC.equals(bytes.subarray(0, 4)) || isSkippableMagic(bytes)
}

type State = 'magic' | 'skip-size' | 'skip' | 'descriptor' | 'header' | 'block-header' | 'block' | 'checksum'

/**
 * Cuts a zstd stream at the borders of its frames and leaves the skippable ones out (RFC 8878, section 3.1): Node's
 * decompressor stops at the first frame that ends inside a piece.
 */
export class ZstdFrames {
  #state: State = 'magic'
  /** Bytes of the part in hand that are still to come. */
  #left = 4
  /** Of the parts that say what follows: at most four bytes. */
  #field: number[] = []
  #hasChecksum = false
  #isLastBlock = false

  /**
   * What of `chunk` belongs to frames, none of the pieces reaching over the end of one.
   * @throws BerthError invalid if something other than a frame begins
   */
  push(chunk: Buffer): Buffer[] {
    const pieces: Buffer[] = []
    let at = 0
    let start = 0 // of the piece in hand
    while (at < chunk.length) {
      const wasInFrame = this.#isInFrame()
      const used = Math.min(this.#left, chunk.length - at)
      if (this.#isField()) this.#field.push(...chunk.subarray(at, at + used))
      at += used
      this.#left -= used
      while (this.#left === 0) this.#next()
      if (wasInFrame && !this.#isInFrame()) pieces.push(chunk.subarray(start, at))
      // The magic number was held back until it was known what begins here.
      if (!wasInFrame && this.#isInFrame()) pieces.push(FRAME_MAGIC)
      if (!wasInFrame || !this.#isInFrame()) start = at
    }
    if (start < chunk.length) pieces.push(chunk.subarray(start))
    return pieces
  }

  /** @throws BerthError invalid if a frame is not complete */
  end(): void {
    if (this.#state !== 'magic' || this.#left !== 4)
      throw new BerthError('invalid', 'zstd: unexpected end of file')
  }

  #isField(): boolean {
    return (
      this.#state !== 'skip' &&
      this.#state !== 'header' &&
      this.#state !== 'block' &&
      this.#state !== 'checksum'
    )
  }

  #isInFrame(): boolean {
    return this.#state !== 'magic' && this.#state !== 'skip-size' && this.#state !== 'skip'
  }

  /** The part in hand is complete. */
  #next(): void {
    const field = Buffer.from(this.#field)
    this.#field = []
    if (this.#state === 'magic') {
      if (isSkippableMagic(field)) this.#expect('skip-size', 4)
      else if (FRAME_MAGIC.equals(field)) this.#expect('descriptor', 1)
      else throw new BerthError('invalid', `zstd: expected a frame, found the bytes ${field.toString('hex')}`)
    } else if (this.#state === 'skip-size') {
      this.#expect('skip', field.readUInt32LE(0))
    } else if (this.#state === 'descriptor') {
      this.#hasChecksum = (field[0]! & 4) !== 0
      this.#expect('header', headerLength(field[0]!))
    } else if (this.#state === 'header') {
      this.#expect('block-header', 3)
    } else if (this.#state === 'block-header') {
      const value = field.readUIntLE(0, 3)
      const isRunLength = ((value >> 1) & 3) === 1
      this.#isLastBlock = (value & 1) !== 0
      this.#expect('block', isRunLength ? 1 : value >> 3)
    } else if (this.#state === 'block' && !this.#isLastBlock) {
      this.#expect('block-header', 3)
    } else if (this.#state === 'block' && this.#hasChecksum) {
      this.#expect('checksum', 4)
    } else {
      this.#expect('magic', 4)
    }
  }

  #expect(state: State, length: number): void {
    this.#state = state
    this.#left = length
  }
}

/** What follows the descriptor: window descriptor, dictionary id, content size. */
function headerLength(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0
  const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!
  const dictionaryId = [0, 1, 2, 4][descriptor & 3]!
  return (isSingleSegment ? 0 : 1) + dictionaryId + contentSize
}
