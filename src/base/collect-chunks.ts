/** Fewer collections would let more pile up; each takes a fraction of a millisecond. */
const COLLECT_AFTER = 4 * 2 ** 20

let passed = 0

/**
 * Call it for bytes that only pass through the daemon: those of a session, or of a pull. Their chunks are small objects with much memory outside of V8's
 * heap. V8 heeds that memory only once it has grown by 64 MiB, and then collects its whole heap, over and over during
 * a transfer. The chunks are young and soon dead: collecting the young generation alone, and early, frees them for a
 * fraction of the time and keeps the daemon's size as it is. Without node's `--expose-gc`, V8 does as it likes.
 */
export function collectChunks(bytes: number): void {
  passed += bytes
  if (passed < COLLECT_AFTER) return
  passed = 0
  globalThis.gc?.({ type: 'minor' })
}
