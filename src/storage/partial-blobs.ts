import { createReadStream, existsSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, hexOf } from '../base/digest.ts'
import { effect, effectSync } from '../base/effects.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../observe/log.ts'
import { ensureDir } from '../os/files.ts'

export type PartialBlobsOptions = {
  readonly directory: string
  /** What a download has to have waited for the network before anything of it is kept. */
  readonly afterMs: number
  /** What nobody has touched for so long is deleted; 0: nothing is kept. */
  readonly ttlMs: number
  readonly log: Log
}

/** Kept bytes never take the last of a disk: kubelet evicts pods when less than 15 % is free. */
const MIN_FREE = 0.15

/** The free space is looked at after so many bytes. */
const LOOK_EVERY = 32 * 1024 * 1024

const READ_CHUNK = 256 * 1024

const SWEEP_MS = 3_600_000

/** Digest, and which byte of the blob the file begins with. */
const NAME = /^([0-9a-f]{64})\.(\d{1,15})$/

/**
 * The beginnings of blobs whose download may be broken off: by a cancelled pull, or with the daemon. A blob goes
 * straight from the network to who unpacks it, and a quick one costs no write here: only once a download has waited for
 * the network so long that waiting again would be a pity, its further bytes are also appended to a file. What came
 * before that is fetched again.
 *
 * Nothing is synced: whoever reads the bytes verifies the blob's digest anyway.
 */
export class PartialBlobs {
  readonly #options: PartialBlobsOptions
  readonly #open = new Set<Digest>()
  readonly #timer: NodeJS.Timeout

  constructor(options: PartialBlobsOptions) {
    this.#options = options
    ensureDir(options.directory, 0o700)
    this.#timer = setInterval(() => this.sweep(), SWEEP_MS).unref()
  }

  /** @returns undefined if nothing is to be kept, or somebody else fetches the same blob now */
  open(digest: Digest): PartialFile | undefined {
    const { directory, ttlMs, log } = this.#options
    if (ttlMs === 0 || this.#open.has(digest)) return undefined
    try {
      const name = readdirSync(directory).find(file => NAME.exec(file)?.[1] === hexOf(digest))
      const opened = new PartialFile(this.#options, digest, name, () => this.#open.delete(digest))
      this.#open.add(digest)
      return opened
    } catch (error) {
      log.warn(
        { directory, error: messageOf(error) },
        'downloads are not kept for the case that they are broken off',
      )
      return undefined
    }
  }

  /** Bytes on disk. */
  usage(): number {
    const { directory } = this.#options
    return readdirSync(directory).reduce((sum, name) => sum + sizeOf(join(directory, name)), 0)
  }

  /** Deletes what is too old, and what is not ours. */
  sweep(): void {
    const { directory, ttlMs, log } = this.#options
    try {
      for (const name of readdirSync(directory)) {
        const path = join(directory, name)
        const [, hex] = NAME.exec(name) ?? []
        if ([...this.#open].some(digest => hexOf(digest) === hex)) continue
        const isFresh = hex !== undefined && Date.now() - statSync(path).mtimeMs < ttlMs
        if (!isFresh) effectSync('storage', 'drop-partial', path, () => rmSync(path, { recursive: true }))
      }
    } catch (error) {
      log.warn({ directory, error: messageOf(error) }, 'old partial downloads could not be deleted')
    }
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

function sizeOf(path: string): number {
  return existsSync(path) ? statSync(path).size : 0
}

/** What there is of one blob: the bytes from `start` to before `end`. */
export class PartialFile {
  start = 0
  end = 0
  readonly #options: PartialBlobsOptions
  readonly #digest: Digest
  readonly #onClose: () => void
  #path: string | undefined
  #file: FileHandle | undefined
  #lookAt = 0
  #isGivenUp = false
  /** A reader that is broken off leaves it behind. */
  #writing: Promise<void> | undefined

  constructor(options: PartialBlobsOptions, digest: Digest, name: string | undefined, onClose: () => void) {
    this.#options = options
    this.#digest = digest
    this.#onClose = onClose
    if (name === undefined) return
    this.#path = join(options.directory, name)
    this.start = Number(NAME.exec(name)![2])
    this.end = this.start + sizeOf(this.#path)
  }

  /** From `offset` on, which lies between `start` and `end`. */
  read(offset: number): AsyncIterable<Buffer> {
    const range = { start: offset - this.start, end: this.end - this.start - 1 }
    return createReadStream(this.#path!, { ...range, highWaterMark: READ_CHUNK })
  }

  /** Appends what is new of bytes that came from the network. Never fails: then nothing is kept. */
  write(offset: number, chunk: Buffer, waitedMs: number): Promise<void> | undefined {
    if (this.#isGivenUp || offset + chunk.length <= this.end) return undefined
    const isWanted = this.#path === undefined ? waitedMs >= this.#options.afterMs : offset <= this.end
    if (!isWanted) return undefined
    this.#writing = this.#append(offset, chunk).catch(error => {
      const fields = { blob: this.#digest, error: messageOf(error) }
      this.#options.log.warn(fields, 'a download is not kept for the case that it is broken off')
      return this.#giveUp()
    })
    return this.#writing
  }

  async #append(offset: number, chunk: Buffer): Promise<void> {
    if (this.#path === undefined) {
      this.#path = join(this.#options.directory, `${hexOf(this.#digest)}.${offset}`)
      this.start = offset
      this.end = offset
    }
    const path = this.#path
    this.#file ??= await effect('storage', 'keep-partial', path, () => open(path, 'a', 0o600))
    const fresh = chunk.subarray(this.end - offset)
    await this.#file.appendFile(fresh)
    this.end += fresh.length
    if (this.end < this.#lookAt) return
    this.#lookAt = this.end + LOOK_EVERY
    const { bavail, blocks } = statfsSync(path)
    if (bavail < blocks * MIN_FREE) throw new Error(`less than ${MIN_FREE * 100} % of the disk is free`)
  }

  /** The blob is not whole: the next download goes on from here. */
  async keep(): Promise<void> {
    this.#isGivenUp = true
    await this.#writing
    await this.#file?.close().catch(() => undefined) // what could not be written is not part of it then
    this.#file = undefined
    this.#onClose()
  }

  /** The blob is whole, or what is kept of it is worth nothing. */
  async drop(): Promise<void> {
    this.#isGivenUp = true
    await this.#writing
    await this.#giveUp()
    this.#onClose()
  }

  async #giveUp(): Promise<void> {
    this.#isGivenUp = true
    this.start = 0
    this.end = 0
    await this.#file?.close().catch(() => undefined)
    this.#file = undefined
    const path = this.#path
    this.#path = undefined
    if (path === undefined) return
    try {
      effectSync('storage', 'drop-partial', path, () => rmSync(path, { force: true }))
    } catch (error) {
      // The sweep tries again.
      this.#options.log.warn({ path, error: messageOf(error) }, 'a partial download could not be deleted')
    }
  }
}
