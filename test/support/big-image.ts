import { createHash } from 'node:crypto'
import { createWriteStream, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { imageOf, type TestImage } from './images.ts'
import type { Layer } from './layers.ts'
import { tarEntry } from './tar.ts'

const END_OF_TAR = 1024
// What deflate makes of Content, measured.
const RATIO = 1.85

/**
 * An image of `layers` gzip layers, `bytes` in all when compressed and about twice that unpacked, in files of 1 KiB to
 * 1 MiB. It is built once: a directory that holds one already is used as it is.
 */
export async function bigImage(options: {
  readonly layers: number
  readonly bytes: number
  readonly directory: string
  /** gzip without compression: made, and read, many times as fast. */
  readonly isStored?: boolean
}): Promise<TestImage> {
  const { isStored = false } = options
  const name = `${options.layers}x${options.bytes}${isStored ? '.stored' : ''}`
  const index = join(options.directory, `${name}.json`)
  if (!existsSync(index)) {
    mkdirSync(options.directory, { recursive: true })
    const layers: Layer[] = []
    for (let number = 0; number < options.layers; number++) {
      const file = join(options.directory, `${name}.${number}.tar.gz`)
      const bytes = Math.floor(options.bytes / options.layers)
      layers.push(await bigLayer(file, isStored ? 100 + number : number, bytes, isStored))
    }
    // Last, and by rename: its presence says that all layers are whole.
    writeFileSync(`${index}.new`, JSON.stringify(layers))
    renameSync(`${index}.new`, index)
  }
  return imageOf(JSON.parse(readFileSync(index, 'utf8')) as Layer[], { cmd: ['true'] })
}

async function bigLayer(file: string, number: number, bytes: number, isStored: boolean): Promise<Layer> {
  const diff = createHash('sha256')
  const digest = createHash('sha256')
  const compressor = createGzip({ chunkSize: 256 * 1024, ...(isStored ? { level: 0 } : {}) })
  let size = 0
  compressor.on('data', (chunk: Buffer) => {
    size += chunk.length
    digest.update(chunk)
  })

  async function* tar(): AsyncGenerator<Buffer> {
    const content = new Content(number + 1)
    for (let index = 0, total = 0; total < bytes * (isStored ? 1 : RATIO); index++) {
      const name = `data/layer${number}/${index >> 8}/file${index}`
      const entry = tarEntry({ name, content: content.next() })
      total += entry.length
      yield hashed(entry)
    }
    yield hashed(Buffer.alloc(END_OF_TAR))
  }
  const hashed = (chunk: Buffer): Buffer => {
    diff.update(chunk)
    return chunk
  }
  await pipeline(tar, compressor, createWriteStream(file))
  const blob = { digest: `sha256:${digest.digest('hex')}`, size, data: { file } }
  return { blob, diffId: `sha256:${diff.digest('hex')}`, compression: 'gzip' }
}

/** The bodies of files: the same ones for the same seed. */
class Content {
  /** Hexadecimal digits of random bytes: deflate halves them and finds no repetition within its window. */
  readonly #pool = Buffer.allocUnsafe(4 * 1024 * 1024)
  #state: number

  constructor(seed: number) {
    this.#state = seed
    for (let at = 0; at < this.#pool.length; at += 4) {
      this.#pool.write(this.#random().toString(16).padStart(8, '0').slice(0, 4), at, 'latin1')
    }
  }

  next(): Buffer {
    const size = 1024 << (this.#random() % 11)
    const start = this.#random() % (this.#pool.length - size)
    return this.#pool.subarray(start, start + size)
  }

  /** xorshift32 */
  #random(): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x
    return x >>> 0
  }
}
