import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { gunzipSync } from 'node:zlib'
import { type Digest, digestFromHex } from '../../src/base/digest.ts'
import type { LayerSnapshots } from '../../src/images/layers.ts'
import type { LayerSeal, UnpackedLayer, UnpackLimits } from '../../src/storage/snapshots.ts'

/** Layers as directories that hold nothing but the uncompressed tar: digests are real, and no root is needed. */
export class FakeSnapshots implements LayerSnapshots {
  readonly root: string = mkdtempSync(join(tmpdir(), 'berth-images-'))
  /** What was committed with what below it, in order. */
  readonly commits: Array<{ readonly dir: string; readonly below: readonly string[] }> = []
  readonly #finished = new Map<string, readonly string[]>()
  /** Called before a batch is published. */
  onPublish: (layers: ReadonlyArray<{ readonly staging: string }>) => Promise<void> = () => Promise.resolve()
  /** Called before each step; what it throws or waits for happens there. */
  onStep: (step: 'unpack' | 'finish' | 'commit', path: string) => void | Promise<void> = () => undefined

  constructor() {
    for (const name of ['staging', 'layers']) mkdirSync(join(this.root, name))
  }

  prepare(): void {}

  async unpack(
    source: Readable,
    staging: string,
    limits: UnpackLimits,
    signal: AbortSignal,
  ): Promise<UnpackedLayer> {
    mkdirSync(staging)
    try {
      const blob = Buffer.concat(await source.toArray({ signal }))
      await this.onStep('unpack', staging)
      signal.throwIfAborted()
      const tar = blob[0] === 0x1f ? gunzipSync(blob) : blob
      if (tar.length > limits.maxBytes) throw new Error('too big')
      writeFileSync(join(staging, 'tar'), tar)
      return {
        blobDigest: sha256(blob),
        blobSize: blob.length,
        diffId: sha256(tar),
        size: tar.length,
        inodes: 1,
        implied: [],
        whiteouts: [],
        deferredLinks: [],
      }
    } finally {
      source.destroy()
    }
  }

  async finishLayer(staging: string, _layer: UnpackedLayer, below: readonly string[]): Promise<LayerSeal> {
    await this.onStep('finish', staging)
    for (const path of below) if (!existsSync(path)) throw new Error(`${path} is not there`)
    this.#finished.set(staging, [...below])
    return { record: sha256(Buffer.from(staging)), mtime: 1n }
  }

  async publishLayers(
    layers: ReadonlyArray<{ readonly staging: string; readonly dir: string }>,
  ): Promise<void> {
    await this.onPublish(layers)
    for (const { dir } of layers) await this.onStep('commit', dir)
    for (const { staging, dir } of layers) {
      renameSync(staging, this.layerPath(dir))
      this.commits.push({ dir, below: this.#finished.get(staging) ?? [] })
    }
  }

  checkLayer(dir: string): string | undefined {
    return existsSync(this.layerPath(dir)) ? undefined : 'its directory is missing'
  }

  recordPath(dir: string): string {
    return join(this.root, 'records', dir)
  }

  stagingPath(key: string): string {
    return join(this.root, 'staging', key)
  }

  layerPath(dir: string): string {
    return join(this.root, 'layers', dir)
  }

  stagedPath(name: string): string {
    return join(this.root, 'staging', name)
  }

  listRecords(): string[] {
    return []
  }

  listLayerDirs(): string[] {
    return readdirSync(join(this.root, 'layers'))
  }

  listStaging(): string[] {
    return readdirSync(join(this.root, 'staging'))
  }

  discard(path: string): void {
    rmSync(path, { recursive: true, force: true })
  }

  /** What is awaited before the disk is looked at. */
  onEmptied: () => Promise<void> = () => Promise.resolve()

  async emptied(): Promise<undefined> {
    await this.onEmptied()
  }

  async sweep(): Promise<void> {
    for (const name of this.listStaging()) this.discard(this.stagingPath(name))
  }

  remove(): void {
    rmSync(this.root, { recursive: true })
  }
}

function sha256(data: Buffer): Digest {
  return digestFromHex(createHash('sha256').update(data).digest('hex'))
}
