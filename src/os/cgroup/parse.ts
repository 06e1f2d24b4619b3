import type { IoStats, Pressure, PressureLine } from './cgroup.ts'

/** `key value` per line (memory.stat, cpu.stat, memory.events, cpuacct.stat). */
export function parseFlatKeyed(text: string): Map<string, bigint> {
  const values = new Map<string, bigint>()
  for (const line of text.split('\n')) {
    const [key, value] = line.split(' ')
    if (key !== undefined && value !== undefined && /^[0-9]+$/.test(value)) values.set(key, BigInt(value))
  }
  return values
}

/** One number. `max`, -1 and version 1's "no limit" (the highest page-aligned int64) are 0. */
export function parseLimit(text: string): bigint {
  const trimmed = text.trim()
  if (!/^[0-9]+$/.test(trimmed)) return 0n
  const value = BigInt(trimmed)
  return value >= NO_LIMIT ? 0n : value
}

/** The same as a plain number; undefined for no limit and for a file that is not there. */
export function parseNumber(text: string): number | undefined {
  const value = parseLimit(text)
  return value === 0n && text.trim() !== '0' ? undefined : Number(value)
}

// 2⁶³ − 64 KiB: the largest page size in use, so that any kernel's "no limit" is above it.
const NO_LIMIT = 2n ** 63n - 65_536n

/** Never below 0: the two figures are read one after the other. */
export function workingSet(usage: bigint, inactiveFile: bigint): bigint {
  return usage > inactiveFile ? usage - inactiveFile : 0n
}

/** undefined for a file that is empty: pressure accounting is off. */
export function parsePressure(text: string): Pressure | undefined {
  const lines = new Map<string, PressureLine>()
  for (const line of text.split('\n')) {
    const [kind, ...pairs] = line.split(' ')
    const values = new Map(pairs.map(pair => pair.split('=') as [string, string]))
    const total = values.get('total')
    if (kind === undefined || total === undefined) continue
    lines.set(kind, {
      avg10: Number(values.get('avg10')),
      avg60: Number(values.get('avg60')),
      avg300: Number(values.get('avg300')),
      total: BigInt(total) * 1000n, // µs
    })
  }
  const some = lines.get('some')
  if (some === undefined) return undefined
  // Before Linux 5.13 cpu.pressure has no "full" line.
  return { some, full: lines.get('full') ?? { avg10: 0, avg60: 0, avg300: 0, total: 0n } }
}

/** Version 2, io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`; devices without traffic have no pairs. */
export function parseIoStat(text: string): IoStats[] {
  const devices: IoStats[] = []
  for (const line of text.split('\n')) {
    const [device, ...pairs] = line.split(' ')
    const values = new Map(pairs.map(pair => pair.split('=') as [string, string]))
    if (device === undefined || !values.has('rbytes')) continue
    devices.push({
      device,
      readBytes: BigInt(values.get('rbytes') ?? 0),
      writeBytes: BigInt(values.get('wbytes') ?? 0),
      reads: BigInt(values.get('rios') ?? 0),
      writes: BigInt(values.get('wios') ?? 0),
    })
  }
  return devices
}

/** Version 1, blkio.throttle.io_service_bytes and io_serviced: `8:0 Read 12`, a last line `Total 12`. */
export function parseBlkio(bytes: string, operations: string): IoStats[] {
  const sizes = parseBlkioFile(bytes)
  const counts = parseBlkioFile(operations)
  return [...sizes].map(([device, size]) => ({
    device,
    readBytes: size.get('Read') ?? 0n,
    writeBytes: size.get('Write') ?? 0n,
    reads: counts.get(device)?.get('Read') ?? 0n,
    writes: counts.get(device)?.get('Write') ?? 0n,
  }))
}

function parseBlkioFile(text: string): Map<string, Map<string, bigint>> {
  const devices = new Map<string, Map<string, bigint>>()
  for (const line of text.split('\n')) {
    const [device, operation, value] = line.split(' ')
    if (device === undefined || operation === undefined || value === undefined) continue
    const operations = devices.get(device) ?? new Map<string, bigint>()
    devices.set(device, operations.set(operation, BigInt(value)))
  }
  return devices
}

/** Version 2, cpu.max: `max 100000` or `50000 100000`. Quota -1: none. */
export function parseCpuMax(text: string): { quota: number; period: number } | undefined {
  const [quota, period] = text.trim().split(' ')
  if (quota === undefined || period === undefined) return undefined
  return { quota: quota === 'max' ? -1 : Number(quota), period: Number(period) }
}

/** cpu.shares (2…262144) as cpu.weight (1…10000): the mapping that runc and systemd use. */
export function sharesToWeight(shares: number): number {
  const clamped = Math.min(Math.max(shares, 2), 262_144)
  return Math.floor(1 + ((clamped - 2) * 9999) / 262_142)
}

export function weightToShares(weight: number): number {
  return Math.floor(2 + ((weight - 1) * 262_142) / 9999)
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** The members that are not undefined. */
export function present<T extends object>(object: T): Present<T> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as Present<T>
}
