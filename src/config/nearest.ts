/** Levenshtein distance: insertions, deletions and substitutions cost 1 each, and so does a swap of neighbours. */
function distance(a: string, b: string): number {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + change)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, before[j - 2]! + 1)
      row.push(cost)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

/** The candidate most like `name`, or undefined when none is near enough for a typing mistake. */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  const limit = Math.max(2, Math.floor(name.length / 3))
  let best: { readonly candidate: string; readonly cost: number } | undefined
  for (const candidate of candidates) {
    const cost = distance(name, candidate)
    if (cost <= limit && (best === undefined || cost < best.cost)) best = { candidate, cost }
  }
  return best?.candidate
}
