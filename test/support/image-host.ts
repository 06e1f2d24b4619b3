import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Digest } from '../../src/base/digest.ts'
import { ImageService, type ImageServiceOptions } from '../../src/images/image-service.ts'
import type { LayerSnapshots } from '../../src/images/layers.ts'
import { Policies } from '../../src/images/policy/policies.ts'
import type { PullProgress } from '../../src/images/pull-progress.ts'
import type { Log, LogFields } from '../../src/observe/log.ts'
import type { Credentials } from '../../src/registry/credentials.ts'
import { Database } from '../../src/state/database.ts'
import { PartialBlobs } from '../../src/storage/partial-blobs.ts'
import { TestRegistry } from './registry.ts'
import { startClient, temporaryDirectory } from './registry-client.ts'

export type ImageHostOptions = Partial<
  Omit<ImageServiceOptions, 'db' | 'snapshots' | 'registry' | 'partials'>
> & {
  /** registries.conf. */
  readonly conf?: string
  /** Default: nothing is kept of broken downloads. */
  readonly partials?: { readonly afterMs: number; readonly ttlMs: number }
}

/** An image service with its database and a registry in this process; `restart` is what a new daemon finds. */
export class ImageHost {
  readonly server: TestRegistry
  readonly file: string
  readonly #directory: string
  readonly #open: () => Opened
  #opened: Opened

  static async start(
    t: TestContext,
    snapshots: LayerSnapshots,
    options: ImageHostOptions = {},
  ): Promise<ImageHost> {
    const server = await TestRegistry.start()
    const file = join(temporaryDirectory(t), 'berth.db')
    const { conf = '', partials: kept, ...rest } = options
    const registry = startClient(t, conf)
    const directory = join(temporaryDirectory(t), 'partial')
    const open = () => {
      const db = Database.open(file)
      const partials = new PartialBlobs({ directory, afterMs: 0, ttlMs: 0, ...kept, log: silent })
      const images = new ImageService({
        db,
        registry,
        policies: new Policies({ file: '/nonexistent', isOptional: true, directory: '' }),
        snapshots,
        log: silent,
        limits: { maxEntries: 100_000, maxDepth: 100, maxBytes: 2 ** 31, maxRatio: 0, ratioFloor: 0 },
        maxParallelDownloads: 4,
        maxNodeDownloads: 8,
        pinnedImages: [],
        gc: { intervalMs: 0, highThreshold: 0, lowThreshold: 0, minimumAgeMs: 0 },
        platform: { os: 'linux', architecture: 'amd64' },
        partials,
        ...rest,
      })
      return { db, images, partials }
    }
    const host = new ImageHost(server, file, directory, open)
    t.after(() => host.close())
    return host
  }

  private constructor(server: TestRegistry, file: string, directory: string, open: () => Opened) {
    this.server = server
    this.file = file
    this.#directory = directory
    this.#open = open
    this.#opened = open()
  }

  get images(): ImageService {
    return this.#opened.images
  }

  get db(): Database {
    return this.#opened.db
  }

  /** `127.0.0.1:port/` in front. */
  name(name: string): string {
    return `${this.server.address}/${name}`
  }

  pull(
    name: string,
    options: {
      readonly signal?: AbortSignal
      readonly credentials?: Credentials | undefined
      readonly onProgress?: (progress: PullProgress) => void
      readonly namespace?: string
    } = {},
  ): Promise<Digest> {
    const { signal = new AbortController().signal, credentials, onProgress, namespace } = options
    return this.images.pull(this.name(name), credentials, signal, onProgress, namespace)
  }

  /** How often a blob's content was asked for. */
  downloads(digest: string): number {
    return this.server.requestsTo(/^GET /).filter(({ path }) => path.endsWith(`/blobs/${digest}`)).length
  }

  /** Bytes that are kept of broken downloads. */
  kept(): number {
    return this.#opened.partials.usage()
  }

  /** Makes what is kept something else. */
  spoilKept(): void {
    for (const name of readdirSync(this.#directory)) {
      const path = join(this.#directory, name)
      writeFileSync(path, Buffer.alloc(statSync(path).size, 'wrong'))
    }
  }

  /** A new daemon with the same files, after an orderly end. */
  async restart(): Promise<void> {
    await this.#end()
    this.#opened = this.#open()
    await this.images.recover()
  }

  async close(): Promise<void> {
    await this.#end()
    await this.server.close()
  }

  async #end(): Promise<void> {
    await this.images.close()
    this.#opened.partials.close()
    this.db.close()
  }
}

type Opened = { readonly db: Database; readonly images: ImageService; readonly partials: PartialBlobs }

/** Collects the fields of the lines of level `info`. */
export function recordingLog(lines: LogFields[]): Log {
  return { ...silent, info: fields => void lines.push(fields) }
}

export const silent: Log = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  fatal: () => undefined,
  child: () => silent,
}
