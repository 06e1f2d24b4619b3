import type Sqlite from 'better-sqlite3'
import type { Digest } from '../base/digest.ts'
import type { Image } from '../model/image.ts'
import { reviveImageConfig } from './rows.ts'

/** An image's row; whether it is pinned is the configuration's business. */
export type ImageRow = Omit<Image, 'pinned'>

type Row = {
  id: Digest
  size: bigint
  top_layer: Digest | null
  created_at: bigint
  config: string
}

type NameRow = { name: string; kind: 'tag' | 'digest'; image_id: Digest }

export type ManifestRow = { readonly digest: Digest; readonly mediaType: string; readonly bytes: Buffer }

/** A signature of an image, and the digest of what it signs. */
export type SignatureRow = { readonly manifest: Digest; readonly payload: Buffer; readonly signature: string }

const CONTAINERS = `
  SELECT id FROM containers
  WHERE image_id = @id OR json_valid(image_mounts) AND @id IN (SELECT value FROM json_each(image_mounts))
  ORDER BY created_at`

/** `namespace/pod container (id)`; rows that cannot be read by their ids alone. */
const DESCRIBE = `
  SELECT coalesce(
    CASE WHEN json_valid(p.config) AND json_valid(c.config) THEN
      (p.config ->> '$.metadata.namespace') || '/' || (p.config ->> '$.metadata.name') || ' '
        || (c.config ->> '$.metadata.name') || ' (' || substr(c.id, 1, 12) || ')'
    END, c.id)
  FROM containers c JOIN pods p ON p.id = c.pod_id
  WHERE c.id IN (SELECT value FROM json_each(?)) ORDER BY c.created_at`

export class ImageReader {
  readonly #all: Sqlite.Statement<[], Row>
  readonly #names: Sqlite.Statement<[], NameRow>
  readonly #rawConfig: Sqlite.Statement<[string], Buffer>
  readonly #usedAt: Sqlite.Statement<[string], bigint>
  readonly #containers: Sqlite.Statement<[{ id: string }], string>
  readonly #preload: Sqlite.Statement<[string], string>
  readonly #preloaded: Sqlite.Statement<[string], string>
  readonly #describe: Sqlite.Statement<[string], string>
  readonly #manifests: Sqlite.Statement<[string], { digest: Digest; media_type: string; bytes: Buffer }>
  readonly #signatures: Sqlite.Statement<[string], SignatureRow>

  constructor(db: Sqlite.Database) {
    this.#all = db
      .prepare<[], Row>('SELECT id, size, top_layer, created_at, config FROM images ORDER BY created_at')
      .safeIntegers(true)
    this.#names = db.prepare('SELECT name, kind, image_id FROM image_names ORDER BY rowid')
    this.#rawConfig = db.prepare<[string], Buffer>('SELECT raw_config FROM images WHERE id = ?').pluck()
    this.#usedAt = db
      .prepare<[string], bigint>('SELECT used_at FROM images WHERE id = ?')
      .pluck()
      .safeIntegers(true)
    this.#containers = db.prepare<[{ id: string }], string>(CONTAINERS).pluck()
    this.#preload = db.prepare<[string], string>('SELECT version FROM preloads WHERE path = ?').pluck()
    this.#preloaded = db
      .prepare<[string], string>('SELECT image_id FROM preloaded_images WHERE path = ?')
      .pluck()
    this.#describe = db.prepare<[string], string>(DESCRIBE).pluck()
    this.#manifests = db.prepare('SELECT digest, media_type, bytes FROM manifests WHERE image_id = ?')
    this.#signatures = db.prepare(
      'SELECT manifest, payload, signature FROM image_signatures WHERE image_id = ?',
    )
  }

  all(): ImageRow[] {
    const names = Map.groupBy(this.#names.all(), row => row.image_id)
    return this.#all.all().map(row => imageOf(row, names.get(row.id) ?? []))
  }

  /** The configuration's bytes as the registry gave them. */
  rawConfig(id: Digest): Buffer | undefined {
    return this.#rawConfig.get(id)
  }

  /** When a container was last made of it, ns since 1970; 0n: never. */
  usedAt(id: Digest): bigint {
    return this.#usedAt.get(id) ?? 0n
  }

  /** Ids of the containers whose root or one of whose image volumes it is, oldest first. */
  containersOf(id: Digest): string[] {
    return this.#containers.all({ id })
  }

  /** What was imported from an archive at a start. */
  preloaded(path: string): { readonly version: string; readonly images: readonly Digest[] } | undefined {
    const version = this.#preload.get(path)
    return version === undefined ? undefined : { version, images: this.#preloaded.all(path) as Digest[] }
  }

  /** Containers as people call them. */
  describeContainers(ids: readonly string[]): string[] {
    return this.#describe.all(JSON.stringify(ids))
  }

  manifests(id: Digest): ManifestRow[] {
    return this.#manifests
      .all(id)
      .map(row => ({ digest: row.digest, mediaType: row.media_type, bytes: row.bytes }))
  }

  /** Those that a policy accepted once. */
  signatures(id: Digest): SignatureRow[] {
    return this.#signatures.all(id)
  }
}

export class ImageWriter extends ImageReader {
  readonly #insert: Sqlite.Statement<unknown[]>
  readonly #name: Sqlite.Statement<[string, string, string]>
  readonly #forgetPreload: Sqlite.Statement<[string]>
  readonly #setPreload: Sqlite.Statement<[string, string]>
  readonly #setPreloaded: Sqlite.Statement<[string, string]>
  readonly #deleteName: Sqlite.Statement<[string]>
  readonly #use: Sqlite.Statement<[bigint, string]>
  readonly #manifest: Sqlite.Statement<[string, string, string, Buffer]>
  readonly #signature: Sqlite.Statement<[string, string, Buffer, string]>
  readonly #delete: Sqlite.Statement<[string]>

  constructor(db: Sqlite.Database) {
    super(db)
    this.#insert = db.prepare(
      `INSERT INTO images (id, size, top_layer, created_at, config, raw_config) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO NOTHING`,
    )
    this.#name = db.prepare(
      `INSERT INTO image_names (name, kind, image_id) VALUES (?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id`,
    )
    this.#forgetPreload = db.prepare('DELETE FROM preloads WHERE path = ?')
    this.#setPreload = db.prepare('INSERT INTO preloads (path, version) VALUES (?, ?)')
    this.#setPreloaded = db.prepare(
      'INSERT INTO preloaded_images (path, image_id) VALUES (?, ?) ON CONFLICT DO NOTHING',
    )
    this.#deleteName = db.prepare('DELETE FROM image_names WHERE name = ?')
    this.#use = db.prepare('UPDATE images SET used_at = max(used_at, ?) WHERE id = ?')
    this.#manifest = db.prepare(
      `INSERT INTO manifests (digest, image_id, media_type, bytes) VALUES (?, ?, ?, ?)
       ON CONFLICT (digest) DO UPDATE SET image_id = excluded.image_id`,
    )
    this.#signature = db.prepare(
      `INSERT INTO image_signatures (image_id, manifest, payload, signature) VALUES (?, ?, ?, ?)
       ON CONFLICT DO NOTHING`,
    )
    this.#delete = db.prepare('DELETE FROM images WHERE id = ?')
  }

  /** Does nothing when the image is there already: its id is the digest of its content. */
  insert(image: ImageRow, rawConfig: Buffer): void {
    this.#insert.run(
      image.id,
      image.size,
      image.topLayer ?? null,
      image.createdAt,
      JSON.stringify(image.config),
      rawConfig,
    )
  }

  /** Gives the name to this image, taking it from the one that had it. */
  setName(name: string, kind: 'tag' | 'digest', id: Digest): void {
    this.#name.run(name, kind, id)
  }

  setPreloaded(path: string, version: string, images: readonly string[]): void {
    this.#forgetPreload.run(path)
    this.#setPreload.run(path, version)
    for (const id of images) this.#setPreloaded.run(path, id)
  }

  deleteName(name: string): void {
    this.#deleteName.run(name)
  }

  /** A container was made of it. */
  use(id: string, time: bigint): void {
    this.#use.run(time, id)
  }

  insertManifest(id: Digest, manifest: ManifestRow): void {
    this.#manifest.run(manifest.digest, id, manifest.mediaType, manifest.bytes)
  }

  insertSignature(id: Digest, { manifest, payload, signature }: SignatureRow): void {
    this.#signature.run(id, manifest, payload, signature)
  }

  /** With all its names, manifests and signatures. */
  delete(id: Digest): void {
    this.#delete.run(id)
  }
}

function imageOf(row: Row, names: readonly NameRow[]): ImageRow {
  return {
    id: row.id,
    repoTags: names.filter(name => name.kind === 'tag').map(name => name.name),
    repoDigests: names.filter(name => name.kind === 'digest').map(name => name.name),
    size: Number(row.size),
    config: reviveImageConfig(row.config),
    topLayer: row.top_layer ?? undefined,
    createdAt: row.created_at,
  }
}
