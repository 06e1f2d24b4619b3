/**
 * A fuzz target is a file `test/fuzz/<name>.fuzz.ts` that exports one `target`. Inputs are bytes, so that those which
 * failed once can lie in `corpus/<name>/` and be tried first ever after.
 */
import fc from 'fast-check'

export type FuzzTarget = {
  /** Near enough to what is accepted to get past the first check: see `mutated`, `text`. */
  readonly inputs: fc.Arbitrary<Buffer>
  /**
   * Returns for an input that is taken. For one that is refused it throws an error with a message that may be shown
   * to an operator; whatever else it throws (a TypeError, a failed assertion) is a bug.
   */
  readonly run: (input: Buffer) => void | Promise<void>
  /** How many inputs `npm test` tries: about a second's worth. */
  readonly runs: number
}

// What a message in a pod's event may take; the rest of it comes from others.
const MAX_MESSAGE = 8192

/** Errors of our own making, of a plain kind, that say something. Control characters are escaped where they leave. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const isOurs = [Error, SyntaxError].some(kind => error.constructor === kind) || error.name === 'BerthError'
  const { message } = error
  return isOurs && message !== '' && message.length <= MAX_MESSAGE
}

export function text(inputs: fc.Arbitrary<string>): fc.Arbitrary<Buffer> {
  return inputs.map(input => Buffer.from(input))
}

/** Valid inputs with some bytes flipped, cut, doubled, moved, or replaced by one of `tokens` or by an odd number. */
export function mutated(
  seeds: ReadonlyArray<Buffer | string>,
  tokens: ReadonlyArray<Buffer | string> = [],
): fc.Arbitrary<Buffer> {
  const words = [...ODD, ...tokens].map(token => Buffer.from(token as string))
  const edit = fc.record({
    kind: fc.constantFrom('flip', 'cut', 'double', 'insert', 'overwrite', 'truncate'),
    at: fc.nat(2 ** 20),
    length: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 1024 })),
    bit: fc.nat(7),
    word: fc.oneof(fc.constantFrom(...words), fc.uint8Array({ minLength: 1, maxLength: 8 }).map(Buffer.from)),
  })
  return fc
    .tuple(
      fc.constantFrom(...seeds.map(seed => Buffer.from(seed as string))),
      fc.array(edit, { maxLength: 6 }),
    )
    .map(([seed, edits]) => edits.reduce(apply, seed))
}

const ODD = ['\0', '\n', '-1', '0', '99999999999999999999', '../', '"', '\\', '\x1b[2J', '\xff']

type Edit = {
  readonly kind: 'flip' | 'cut' | 'double' | 'insert' | 'overwrite' | 'truncate'
  readonly at: number
  readonly length: number
  readonly bit: number
  readonly word: Buffer
}

function apply(input: Buffer, { kind, at, length, bit, word }: Edit): Buffer {
  const start = at % (input.length + 1)
  const head = input.subarray(0, start)
  const piece = input.subarray(start, start + length)
  if (kind === 'flip') {
    const copy = Buffer.from(input)
    if (start < copy.length) copy[start]! ^= 1 << bit
    return copy
  }
  if (kind === 'cut') return Buffer.concat([head, input.subarray(start + length)])
  if (kind === 'double') return Buffer.concat([head, piece, piece, input.subarray(start + length)])
  if (kind === 'insert') return Buffer.concat([head, word, input.subarray(start)])
  if (kind === 'overwrite') return Buffer.concat([head, word, input.subarray(start + word.length)])
  return head
}
