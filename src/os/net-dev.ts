/** Counters of one network interface since it was made; bytes and packets in error. */
export type InterfaceCounters = {
  readonly name: string
  readonly rxBytes: bigint
  readonly rxErrors: bigint
  readonly txBytes: bigint
  readonly txErrors: bigint
}

/** Of the text of /proc/net/dev: two lines of titles, then `name: 8 receive and 8 transmit counters`. */
export function parseNetDev(text: string): InterfaceCounters[] {
  const found: InterfaceCounters[] = []
  for (const line of text.split('\n').slice(2)) {
    const colon = line.lastIndexOf(':')
    if (colon < 0) continue
    const [rxBytes = '0', , rxErrors = '0', , , , , , txBytes = '0', , txErrors = '0'] = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
    found.push({
      name: line.slice(0, colon).trim(),
      rxBytes: BigInt(rxBytes),
      rxErrors: BigInt(rxErrors),
      txBytes: BigInt(txBytes),
      txErrors: BigInt(txErrors),
    })
  }
  return found
}
