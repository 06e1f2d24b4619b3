/** Items of one message of a list stream. */
const MAX_ITEMS = 100
/**
 * Characters in one message. Each is at most 3 bytes of UTF-8, and one item more may follow, itself under 1 MiB (a pod's
 * annotations are at most 256 KiB): well under the 16 MiB that a client takes.
 */
const MAX_TEXT = 4 * 2 ** 20

/** Cuts a list into messages that no client refuses. */
export function* batches<T>(items: Iterable<T>): Generator<T[]> {
  let batch: T[] = []
  let text = 0
  for (const item of items) {
    batch.push(item)
    text += textIn(item)
    if (batch.length >= MAX_ITEMS || text >= MAX_TEXT) {
      yield batch
      batch = []
      text = 0
    }
  }
  if (batch.length > 0) yield batch
}

function textIn(value: unknown): number {
  if (typeof value === 'string') return value.length
  if (typeof value !== 'object' || value === null) return 0
  let total = 0
  for (const [key, member] of Object.entries(value)) total += key.length + textIn(member)
  return total
}
