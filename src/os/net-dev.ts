/** Counters of one network interface since it was made. */
export type InterfaceCounters = {
  readonly name: string
  readonly rxBytes: bigint
  readonly rxPackets: bigint
  readonly rxErrors: bigint
  readonly rxDropped: bigint
  readonly txBytes: bigint
  readonly txPackets: bigint
  readonly txErrors: bigint
  readonly txDropped: bigint
}

/** Of the text of /proc/net/dev: two lines of titles, then `name: 8 receive and 8 transmit counters`. */
export function parseNetDev(text: string): InterfaceCounters[] {
  const found: InterfaceCounters[] = []
  for (const line of text.split('\n').slice(2)) {
    const colon = line.lastIndexOf(':')
    if (colon < 0) continue
    const words = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
    const column = (index: number) => BigInt(words[index] ?? 0)
    found.push({
      name: line.slice(0, colon).trim(),
      rxBytes: column(0),
      rxPackets: column(1),
      rxErrors: column(2),
      rxDropped: column(3),
      txBytes: column(8),
      txPackets: column(9),
      txErrors: column(10),
      txDropped: column(11),
    })
  }
  return found
}
