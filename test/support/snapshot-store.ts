import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after } from 'node:test'
import { sleep } from '../../src/base/clock.ts'
import type { Log, LogFields } from '../../src/observe/log.ts'
import { mountPointsBelow, unmount } from '../../src/os/mounts.ts'
import type { LayerFiles } from '../../src/storage/archive-protocol.ts'
import { createSnapshots } from '../../src/storage/overlay.ts'
import type { Snapshots, UnpackedLayer, UnpackLimits } from '../../src/storage/snapshots.ts'
import { type Compression, layerOf } from './layers.ts'
import type { TarFixture } from './tar.ts'

const LIMITS: UnpackLimits = {
  maxEntries: 10_000,
  maxDepth: 64,
  maxBytes: 64 * 1024 * 1024,
  maxRatio: 0,
  ratioFloor: 0,
}

export async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!holds()) {
    assert.ok(Date.now() < deadline, `not within 20 s: ${what}`)
    await sleep(10)
  }
}

type Content = ReadonlyArray<TarFixture | Buffer> | Buffer

/** Snapshots below a directory of their own, for the tests of one file; nothing of it is left after them. */
export class SnapshotStore {
  readonly root = mkdtempSync('/tmp/berth-storage-')
  readonly logged: Array<{ readonly fields: LogFields; readonly message: string }> = []
  readonly snapshots: Snapshots
  /** By the layer's path: what it takes to read it back. */
  readonly files = new Map<string, LayerFiles>()
  #layers = 0
  #containers = 0

  constructor() {
    this.snapshots = this.open()
    after(async () => {
      await this.snapshots.close()
      for (const path of mountPointsBelow(this.root)) unmount(path, { detach: true })
      rmSync(this.root, { recursive: true })
    })
  }

  /** As another daemon would, over what is there. */
  open(gzipProgram = ''): Snapshots {
    return createSnapshots({ root: this.root, workers: 2, gzipProgram, log: this.#log() })
  }

  path(...names: string[]): string {
    return join(this.root, ...names)
  }

  /** The layer in its staging directory, with digests as they should be. */
  async unpack(
    content: Content,
    compression: Compression = 'gzip',
  ): Promise<{ readonly staging: string; readonly unpacked: UnpackedLayer }> {
    const { blob, diffId } = await layerOf(content, compression)
    const staging = this.snapshots.stagingPath(diffId)
    const unpacked = await this.unpackBytes(blob.data as Buffer, staging)
    const { blobDigest, blobSize } = unpacked
    assert.deepEqual([blobDigest, blobSize, unpacked.diffId], [blob.digest, blob.size, diffId])
    return { staging, unpacked }
  }

  unpackBytes(
    blob: Buffer | Readable,
    staging = this.snapshots.stagingPath('bytes'),
    limits: Partial<UnpackLimits> = {},
    signal = new AbortController().signal,
  ): Promise<UnpackedLayer> {
    const source = Buffer.isBuffer(blob) ? Readable.from([blob]) : blob
    return this.snapshots.unpack(source, staging, { ...LIMITS, ...limits }, signal)
  }

  /** Unpacks all at once, commits in order, lowest first; returns the layers' paths, topmost first. */
  async layers(...contents: readonly Content[]): Promise<string[]> {
    const all = await Promise.all(contents.map(content => this.unpack(content)))
    const below: string[] = []
    for (const { staging, unpacked } of all) {
      const dir = String(++this.#layers)
      const { record } = await this.snapshots.finishLayer(staging, unpacked, [...below])
      await this.snapshots.publishLayers([{ staging, dir }])
      this.files.set(this.snapshots.layerPath(dir), {
        dir: this.snapshots.layerPath(dir),
        record: this.snapshots.recordPath(dir),
        recordDigest: record,
        diffId: unpacked.diffId,
      })
      below.unshift(this.snapshots.layerPath(dir))
    }
    return below
  }

  /** Waits until the trash is deleted. */
  async emptied(): Promise<void> {
    await until(() => readdirSync(this.path('trash')).length === 0, 'the trash is empty')
  }

  newId(): string {
    return `container-${++this.#containers}`
  }

  /** What the layers look like in a container: its root directory. */
  async mounted(...contents: readonly Content[]): Promise<string> {
    return this.snapshots.mountRootfs(this.newId(), await this.layers(...contents))
  }

  #log(): Log {
    const write = (fields: LogFields, message: string) => void this.logged.push({ fields, message })
    return {
      trace: write,
      debug: write,
      info: write,
      warn: write,
      error: write,
      fatal: write,
      child: () => this.#log(),
    }
  }
}
