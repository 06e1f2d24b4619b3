import type Sqlite from 'better-sqlite3'
import type { Digest } from '../base/digest.ts'
import type { Layer } from '../model/image.ts'

type Row = {
  number: bigint
  generation: bigint
  chain_id: Digest
  diff_id: Digest
  parent: Digest | null
  size: bigint
  inodes: bigint
  blob_digest: Digest
  blob_size: bigint
  record: Digest | null
  root_mtime: bigint | null
  damage: string | null
  verified_at: bigint
}

const COLUMNS = `number, generation, chain_id, diff_id, parent, size, inodes, blob_digest, blob_size, record, root_mtime,
  damage, verified_at`

/** The chain from a layer down to its lowest one, topmost first. */
const CHAIN = `
  WITH RECURSIVE chain (id, below, depth) AS (
    SELECT chain_id, parent, 0 FROM layers WHERE chain_id = ?
    UNION ALL
    SELECT l.chain_id, l.parent, depth + 1 FROM layers l JOIN chain c ON l.chain_id = c.below
  )
  SELECT ${COLUMNS} FROM chain JOIN layers ON chain_id = id ORDER BY depth`

/** Layers that no image and no container stands on, children before their parents; a JSON list of images does not count. */
const UNUSED = `
  WITH RECURSIVE held (chain_id) AS (
    SELECT top_layer FROM images WHERE top_layer IS NOT NULL AND id NOT IN (SELECT value FROM json_each(?))
    UNION SELECT chain_id FROM container_layers
    UNION SELECT l.parent FROM layers l JOIN held h ON l.chain_id = h.chain_id WHERE l.parent IS NOT NULL
  )
  SELECT ${COLUMNS} FROM layers
  WHERE phase = 'committed' AND chain_id NOT IN (SELECT chain_id FROM held) ORDER BY number DESC`

/** A layer and everything that stands on it. */
const ABOVE = `
  WITH RECURSIVE above (chain_id) AS (
    SELECT ?
    UNION SELECT l.chain_id FROM layers l JOIN above a ON l.parent = a.chain_id
  )`

export class LayerReader {
  readonly #get: Sqlite.Statement<[string], Row>
  readonly #chain: Sqlite.Statement<[string], Row>
  readonly #unused: Sqlite.Statement<[string], Row>
  readonly #committed: Sqlite.Statement<[], Row>
  readonly #damaged: Sqlite.Statement<[], Row>
  readonly #extracting: Sqlite.Statement<[], Row>
  readonly #totals: Sqlite.Statement<[], { size: number; inodes: number }>
  readonly #images: Sqlite.Statement<[string], Digest>
  readonly #containers: Sqlite.Statement<[string], string>
  readonly #retired: Sqlite.Statement<[], string>
  readonly #unheld: Sqlite.Statement<[], string>

  constructor(db: Sqlite.Database) {
    const rows = <Params extends unknown[]>(sql: string) => db.prepare<Params, Row>(sql).safeIntegers(true)
    this.#get = rows(`SELECT ${COLUMNS} FROM layers WHERE phase = 'committed' AND chain_id = ?`)
    this.#chain = rows(CHAIN)
    this.#unused = rows(UNUSED)
    this.#committed = rows(`SELECT ${COLUMNS} FROM layers WHERE phase = 'committed' ORDER BY number`)
    this.#damaged = rows(`SELECT ${COLUMNS} FROM layers WHERE damage IS NOT NULL ORDER BY number`)
    this.#extracting = rows(`SELECT ${COLUMNS} FROM layers WHERE phase = 'extracting'`)
    this.#totals = db.prepare(
      `SELECT coalesce(sum(size), 0) AS size, coalesce(sum(inodes), 0) AS inodes FROM layers`,
    )
    this.#images = db
      .prepare<[string], Digest>(
        `${ABOVE} SELECT id FROM images WHERE top_layer IN (SELECT chain_id FROM above) ORDER BY created_at`,
      )
      .pluck()
    this.#containers = db
      .prepare<[string], string>(
        `${ABOVE} SELECT DISTINCT container_id FROM container_layers WHERE chain_id IN (SELECT chain_id FROM above)`,
      )
      .pluck()
    this.#retired = db.prepare<[], string>('SELECT dir FROM retired_layers').pluck()
    this.#unheld = db
      .prepare<[], string>(
        'SELECT dir FROM retired_layers r WHERE NOT EXISTS (SELECT 1 FROM retired_layer_holders h WHERE h.dir = r.dir)',
      )
      .pluck()
  }

  /** A committed layer. */
  get(chainId: Digest): Layer | undefined {
    const row = this.#get.get(chainId)
    return row && layerOf(row)
  }

  /** Topmost first. Empty for an unknown chain id. */
  chain(top: Digest): Layer[] {
    return this.#chain.all(top).map(layerOf)
  }

  /**
   * What garbage collection may delete now, children before parents.
   * @param without ids of images that do not count
   */
  unused(without: readonly Digest[] = []): Layer[] {
    return this.#unused.all(JSON.stringify(without)).map(layerOf)
  }

  /** Parents before children. */
  committed(): Layer[] {
    return this.#committed.all().map(layerOf)
  }

  /** Layers whose directory is not what it should be, parents before children. */
  damaged(): Layer[] {
    return this.#damaged.all().map(layerOf)
  }

  /** Intents of a pull that never committed. */
  extracting(): Layer[] {
    return this.#extracting.all().map(layerOf)
  }

  /** Bytes and inodes of all layers. */
  totals(): { size: number; inodes: number } {
    return this.#totals.get() ?? { size: 0, inodes: 0 }
  }

  /** Ids of the images that stand on a layer, oldest first. */
  imagesOn(chainId: Digest): Digest[] {
    return this.#images.all(chainId)
  }

  /** Ids of the containers that stand on a layer, with their root or a volume. */
  containersOn(chainId: Digest): string[] {
    return this.#containers.all(chainId)
  }

  /** Directories that were replaced; those without a holder are garbage. */
  retired(): string[] {
    return this.#retired.all()
  }

  retiredUnheld(): string[] {
    return this.#unheld.all()
  }
}

export class LayerWriter extends LayerReader {
  readonly #insert: Sqlite.Statement<[string, string, string | null, string, number], { number: number }>
  readonly #commit: Sqlite.Statement<[number, number, string, bigint, string]>
  readonly #replace: Sqlite.Statement<[number, number, number, string, bigint, string]>
  readonly #setDamage: Sqlite.Statement<[string | null, string]>
  readonly #setVerified: Sqlite.Statement<[bigint, string]>
  readonly #retire: Sqlite.Statement<[string]>
  readonly #hold: Sqlite.Statement<[string, string]>
  readonly #forgetRetired: Sqlite.Statement<[string]>
  readonly #delete: Sqlite.Statement<[string]>

  constructor(db: Sqlite.Database) {
    super(db)
    this.#insert = db.prepare(
      `INSERT INTO layers (chain_id, diff_id, parent, blob_digest, blob_size, phase, size, inodes)
       VALUES (?, ?, ?, ?, ?, 'extracting', 0, 0) RETURNING number`,
    )
    this.#commit = db.prepare(
      `UPDATE layers SET phase = 'committed', size = ?, inodes = ?, record = ?, root_mtime = ? WHERE chain_id = ?`,
    )
    this.#replace = db.prepare(
      `UPDATE layers SET generation = ?, size = ?, inodes = ?, record = ?, root_mtime = ?, damage = NULL,
         verified_at = 0
       WHERE chain_id = ?`,
    )
    this.#setDamage = db.prepare('UPDATE layers SET damage = ? WHERE chain_id = ?')
    this.#setVerified = db.prepare('UPDATE layers SET verified_at = ?, damage = NULL WHERE chain_id = ?')
    this.#retire = db.prepare('INSERT INTO retired_layers (dir) VALUES (?) ON CONFLICT DO NOTHING')
    this.#hold = db.prepare('INSERT INTO retired_layer_holders (dir, container_id) VALUES (?, ?)')
    this.#forgetRetired = db.prepare('DELETE FROM retired_layers WHERE dir = ?')
    this.#delete = db.prepare('DELETE FROM layers WHERE chain_id = ?')
  }

  /** The intent to make a layer; its parent has a row already. Returns the name of its directory. */
  insertExtracting(
    layer: Pick<Layer, 'chainId' | 'diffId' | 'parent'>,
    blob: { readonly digest: Digest; readonly size: number },
  ): string {
    const row = this.#insert.get(layer.chainId, layer.diffId, layer.parent ?? null, blob.digest, blob.size)
    return String(row!.number)
  }

  commit(chainId: Digest, { size, inodes, seal }: CommittedLayer): void {
    this.#commit.run(size, inodes, seal.record, seal.mtime, chainId)
  }

  /**
   * The layer was fetched again, into the directory of a later generation. The old one stays for the containers that
   * stand on it.
   */
  replace(before: Layer, dir: string, { size, inodes, seal }: CommittedLayer): void {
    this.#retire.run(before.dir)
    for (const id of this.containersOn(before.chainId)) this.#hold.run(before.dir, id)
    this.#replace.run(generationOf(dir), size, inodes, seal.record, seal.mtime, before.chainId)
  }

  setDamage(chainId: Digest, damage: string): void {
    this.#setDamage.run(damage, chainId)
  }

  /** It was compared with its record and is whole. */
  setVerified(chainId: Digest, time: bigint): void {
    this.#setVerified.run(time, chainId)
  }

  forgetRetired(dir: string): void {
    this.#forgetRetired.run(dir)
  }

  delete(chainId: Digest): void {
    this.#delete.run(chainId)
  }
}

export type CommittedLayer = {
  readonly size: number
  readonly inodes: number
  readonly seal: NonNullable<Layer['seal']>
}

/**
 * The name of the directory of a layer's next generation.
 * @param taken names that cannot be had
 */
export function nextDir({ dir }: Pick<Layer, 'dir'>, taken: ReadonlySet<string> = new Set()): string {
  const [number] = dir.split('.')
  for (let generation = generationOf(dir) + 1; ; generation++) {
    const next = `${number}.${generation}`
    if (!taken.has(next)) return next
  }
}

function generationOf(dir: string): number {
  return Number(dir.split('.')[1] ?? 0)
}

function layerOf(row: Row): Layer {
  return {
    chainId: row.chain_id,
    diffId: row.diff_id,
    ...(row.parent === null ? {} : { parent: row.parent }),
    dir: row.generation === 0n ? `${row.number}` : `${row.number}.${row.generation}`,
    size: Number(row.size),
    inodes: Number(row.inodes),
    seal:
      row.record === null || row.root_mtime === null
        ? undefined
        : { record: row.record, mtime: row.root_mtime },
    damage: row.damage ?? undefined,
    verifiedAt: row.verified_at,
    blobDigest: row.blob_digest,
    blobSize: Number(row.blob_size),
  }
}
