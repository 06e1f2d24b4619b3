import type { Digest } from '../base/digest.ts'

/** What garbage collection must leave alone although no row stands on it yet. */
export class LayerLeases {
  /** How many work on it now. */
  readonly #held = new Map<Digest, number>()
  /** Kept until then, in ms of the monotonic clock. */
  readonly #kept = new Map<Digest, number>()

  /** @returns what ends it; calling that twice is no harm */
  hold(chainIds: readonly Digest[]): () => void {
    for (const id of chainIds) this.#held.set(id, (this.#held.get(id) ?? 0) + 1)
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      for (const id of chainIds) {
        const count = this.#held.get(id)! - 1
        if (count === 0) this.#held.delete(id)
        else this.#held.set(id, count)
      }
    }
  }

  /** For whoever is likely to need them again: the next try of a pull. */
  keep(chainIds: readonly Digest[], ms: number): void {
    for (const id of chainIds) this.#kept.set(id, performance.now() + ms)
  }

  unkeep(chainIds: readonly Digest[]): void {
    for (const id of chainIds) this.#kept.delete(id)
  }

  isHeld(chainId: Digest): boolean {
    return this.#held.has(chainId)
  }

  covers(chainId: Digest): boolean {
    const until = this.#kept.get(chainId)
    if (until !== undefined && until <= performance.now()) this.#kept.delete(chainId)
    return this.isHeld(chainId) || this.#kept.has(chainId)
  }
}
