import { BerthError } from '../base/errors.ts'

/**
 * Bytes of the list of all pods, or of all containers: kubelet asks for it whole and takes no reply above 16 MiB, so
 * one object too many would hide all others. What lies between is for what is estimated here.
 */
const MAX_LIST = 15 * 2 ** 20

/** Of an item beside its texts: tags, lengths, numbers. */
const ITEM_BYTES = 256

/** @throws BerthError exhausted, when the list would become too long with one more that has these texts */
export function requireListRoom(what: string, listed: readonly number[], added: unknown): void {
  const bytes = listed.reduce((sum, item) => sum + item, textBytes(added))
  if (bytes <= MAX_LIST) return
  const mib = (bytes / 2 ** 20).toFixed(1)
  throw new BerthError(
    'exhausted',
    `the list of all ${what} would have ${mib} MiB, and a client takes at most 16: their labels and annotations are too long`,
  )
}

/** About the bytes of an item of a list on the wire. */
export function textBytes(value: unknown): number {
  return ITEM_BYTES + textsIn(value)
}

function textsIn(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value) + 4
  if (typeof value !== 'object' || value === null) return 0
  let total = 0
  for (const [key, member] of Object.entries(value)) total += Buffer.byteLength(key) + 4 + textsIn(member)
  return total
}
