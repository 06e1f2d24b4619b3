/** By the nearest rank: a value that was measured. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('a quantile of nothing')
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('a median of nothing')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Everything that was measured: values by measure and peer, in the order they came. */
export class Samples {
  readonly #values = new Map<string, Map<string, number[]>>()

  add(measure: string, peer: string, ...values: number[]): void {
    const peers = this.#values.get(measure) ?? new Map<string, number[]>()
    this.#values.set(measure, peers)
    peers.set(peer, [...(peers.get(peer) ?? []), ...values])
  }

  /** Empty if that was not measured. */
  of(measure: string, peer: string): readonly number[] {
    return this.#values.get(measure)?.get(peer) ?? []
  }
}
