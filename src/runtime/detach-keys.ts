/** Ctrl-P, Ctrl-Q: what users of terminals detach with. */
const KEYS = [0x10, 0x11] as const

/**
 * Finds the keys that detach a terminal, also where they come in two chunks. The first of them is kept back until it
 * is known what follows.
 */
export class DetachKeys {
  #held = false

  /** @returns what goes on to the container, and whether the keys were pressed; what follows them is dropped */
  read(chunk: Buffer): { readonly bytes: Buffer; readonly detached: boolean } {
    if (chunk.length === 0) return { bytes: chunk, detached: false }
    const typed = this.#held ? Buffer.concat([Buffer.of(KEYS[0]), chunk]) : chunk
    const at = typed.indexOf(Buffer.from(KEYS))
    if (at >= 0) return { bytes: typed.subarray(0, at), detached: true }
    this.#held = typed.at(-1) === KEYS[0]
    return { bytes: this.#held ? typed.subarray(0, -1) : typed, detached: false }
  }
}
