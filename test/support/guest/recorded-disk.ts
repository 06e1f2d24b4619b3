import { closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import type { Server } from 'node:net'
import { output } from '../command.ts'
import { type NbdDisk, serveNbd } from './nbd-server.ts'

/** What a disk with a volatile cache writes or loses as one: no larger than a page, no smaller than it calls atomic. */
const SECTOR = 4096

type Write = {
  readonly kind: 'write'
  readonly offset: number
  readonly data: Buffer
  readonly durable: boolean
}
type DiskEvent = Write | { readonly kind: 'flush' }

/** Numbers from 0 to 1; the same seed gives the same ones. */
export type Random = () => number

/** xorshift32 (Marsaglia) */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0 || 1
  return () => {
    state ^= state << 13
    state >>>= 0
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state / 2 ** 32
  }
}

/** `mebibytes` of ext4 without any file. */
export async function makeEmptyFileSystem(file: string, mebibytes: number): Promise<void> {
  await output('truncate', '-s', `${mebibytes}M`, file)
  await output('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', file)
  await output('debugfs', '-w', '-R', 'rmdir lost+found', file)
}

/**
 * A disk with a volatile write cache that keeps all writes and flushes in their order. A power cut at any of them can be
 * made up afterwards: what was flushed is there, of what was not, any part is.
 */
export class RecordedDisk implements NbdDisk {
  readonly bytes: number
  /** Where it is served. */
  readonly socket: string
  readonly #base: string
  readonly #baseFd: number
  readonly #sectors = new Map<number, Buffer>()
  readonly #events: DiskEvent[] = []
  #server: Server | undefined

  /** `base` is what it has in the beginning; the file is only read. */
  static async serve(base: string, socket: string): Promise<RecordedDisk> {
    const disk = new RecordedDisk(base, socket)
    disk.#server = await serveNbd(disk, socket)
    return disk
  }

  private constructor(base: string, socket: string) {
    this.#base = base
    this.#baseFd = openSync(base, 'r')
    this.bytes = statSync(base).size
    this.socket = socket
  }

  /** How many writes and flushes there were up to now: an acknowledged thing must be there in every later one. */
  get now(): number {
    return this.#events.length
  }

  get flushes(): number {
    return this.#events.filter(({ kind }) => kind === 'flush').length
  }

  get writtenBytes(): number {
    return this.#events.reduce((sum, event) => sum + (event.kind === 'write' ? event.data.length : 0), 0)
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length)
    readSync(this.#baseFd, bytes, 0, length, offset)
    for (const sector of sectorsOf(offset, length)) {
      const content = this.#sectors.get(sector)
      if (content !== undefined) copyOver(bytes, offset, content, sector * SECTOR)
    }
    return bytes
  }

  write(offset: number, data: Buffer, durable: boolean): void {
    this.#events.push({ kind: 'write', offset, data, durable })
    apply(this.#sectors, this.#baseFd, offset, data)
  }

  flush(): void {
    this.#events.push({ kind: 'flush' })
  }

  /**
   * Images of the disk as power cuts leave it, in the order of `points`, which must rise: after so many events, with each
   * unflushed sector kept with the probability `keep`, in any of its versions. Each is made at `file`.
   */
  async *imagesAt(
    points: ReadonlyArray<{ readonly at: number; readonly keep: number }>,
    file: string,
    random: Random,
  ): AsyncGenerator<number> {
    const durableFile = `${file}.durable`
    await output('cp', '--sparse=always', this.#base, durableFile)
    const durable = openSync(durableFile, 'r+')
    try {
      let unflushed: Write[] = []
      let next = 0
      for (const { at, keep } of points) {
        for (; next < at; next++) {
          const event = this.#events[next]!
          if (event.kind === 'write') unflushed.push(event)
          if (event.kind === 'write' && !event.durable) continue
          // FUA takes along what it writes over; the rest stays in doubt.
          const lasting =
            event.kind === 'flush' ? unflushed : unflushed.filter(write => overlap(write, event))
          for (const { data, offset } of lasting) writeSync(durable, data, 0, data.length, offset)
          unflushed = unflushed.filter(write => !lasting.includes(write))
        }
        await output('cp', '--sparse=always', durableFile, file)
        keepSome(file, unflushed, keep, random)
        yield at
      }
    } finally {
      closeSync(durable)
      rmSync(durableFile)
      rmSync(file, { force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise(resolve => this.#server?.close(resolve) ?? resolve(undefined))
    closeSync(this.#baseFd)
  }
}

/** In their order, so that of a sector that was written several times any version may stay. */
function keepSome(file: string, writes: readonly Write[], keep: number, random: Random): void {
  const image = openSync(file, 'r+')
  try {
    for (const { offset, data } of writes) {
      for (let from = 0; from < data.length; ) {
        const to = Math.min(data.length, from + SECTOR - ((offset + from) % SECTOR))
        if (random() < keep) writeSync(image, data, from, to - from, offset + from)
        from = to
      }
    }
  } finally {
    closeSync(image)
  }
}

function overlap(a: Write, b: Write): boolean {
  return a.offset < b.offset + b.data.length && b.offset < a.offset + a.data.length
}

function apply(sectors: Map<number, Buffer>, baseFd: number, offset: number, data: Buffer): void {
  for (const sector of sectorsOf(offset, data.length)) {
    let content = sectors.get(sector)
    if (content === undefined) {
      content = Buffer.alloc(SECTOR)
      readSync(baseFd, content, 0, SECTOR, sector * SECTOR)
      sectors.set(sector, content)
    }
    copyOver(content, sector * SECTOR, data, offset)
  }
}

function* sectorsOf(offset: number, length: number): Generator<number> {
  for (let sector = Math.floor(offset / SECTOR); sector * SECTOR < offset + length; sector++) yield sector
}

/** Where two stretches of the disk overlap. */
function copyOver(target: Buffer, targetAt: number, source: Buffer, sourceAt: number): void {
  const from = Math.max(targetAt, sourceAt)
  const to = Math.min(targetAt + target.length, sourceAt + source.length)
  source.copy(target, from - targetAt, from - sourceAt, to - sourceAt)
}
