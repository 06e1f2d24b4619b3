import { readKernelLog } from './syscalls.ts'

/** The newest bytes: some sixty kills with all that the kernel tells of each, or all of the usual buffer of 256 KiB. */
const MAX_BYTES = 1 << 20

/** Fills a buffer with the newest whole records, oldest first, and tells how many bytes they are. */
type ReadNewest = (buffer: Buffer) => Promise<number>

/**
 * Kills for memory that the kernel's log tells of. It remembers what the counter of a group forgets with the group, but
 * not for ever, and of a flood of kills only some. Whoever asks while it is being read shares the next reading with all
 * others who do: the one under way may have begun before the kill.
 */
export class OomLog {
  readonly #read: ReadNewest
  #current: Promise<unknown> = Promise.resolve()
  #next: Promise<string[]> | undefined

  constructor(read: ReadNewest = readKernelLog) {
    this.#read = read
  }

  /** Of a process that was killed for memory in `group`, or below. False, too, where the log may not be read. */
  async tellsOf(group: string): Promise<boolean> {
    this.#next ??= this.#current.then(() => {
      this.#next = undefined
      const reading = this.#killedGroups()
      this.#current = reading
      return reading
    })
    // The path is that of the host, below which the groups that are seen here may begin.
    return (await this.#next).some(path => `${path}/`.includes(`${group}/`))
  }

  async #killedGroups(): Promise<string[]> {
    const buffer = Buffer.allocUnsafe(MAX_BYTES)
    const length = await this.#read(buffer).catch(() => 0) // not allowed: in a container, by a security module
    return groupsOfOomKills(buffer.toString('latin1', 0, length))
  }
}

/**
 * Every line has its priority, and perhaps its time and its writer: `<6>[  514.090000][  T476] MESSAGE` (syslog(2)).
 * The facility is in the priority's upper bits: what programs write there is not the kernel's, whose is 0.
 */
export function groupsOfOomKills(log: string): string[] {
  const kills = log.matchAll(/^<[0-7]>(?:\[[^\]\n]*\])* ?oom-kill:.*?,task_memcg=([^,\n]+),/gm)
  return Array.from(kills, ([, path]) => path!)
}
