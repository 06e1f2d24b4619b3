import type Sqlite from 'better-sqlite3'
import type { Digest } from '../base/digest.ts'
import type { Layer } from '../model/image.ts'

type Row = {
  number: number
  chain_id: Digest
  diff_id: Digest
  parent: Digest | null
  size: number
  inodes: number
}

const COLUMNS = 'number, chain_id, diff_id, parent, size, inodes'

/** The chain from a layer down to its lowest one, topmost first. */
const CHAIN = `
  WITH RECURSIVE chain (id, below, depth) AS (
    SELECT chain_id, parent, 0 FROM layers WHERE chain_id = ?
    UNION ALL
    SELECT l.chain_id, l.parent, depth + 1 FROM layers l JOIN chain c ON l.chain_id = c.below
  )
  SELECT ${COLUMNS} FROM chain JOIN layers ON chain_id = id ORDER BY depth`

/** Layers that no image and no container stands on, children before their parents. */
const UNUSED = `
  WITH RECURSIVE held (chain_id) AS (
    SELECT top_layer FROM images WHERE top_layer IS NOT NULL
    UNION SELECT chain_id FROM container_layers
    UNION SELECT l.parent FROM layers l JOIN held h ON l.chain_id = h.chain_id WHERE l.parent IS NOT NULL
  )
  SELECT ${COLUMNS} FROM layers
  WHERE phase = 'committed' AND chain_id NOT IN (SELECT chain_id FROM held) ORDER BY number DESC`

export class LayerReader {
  readonly #get: Sqlite.Statement<[string], Row>
  readonly #chain: Sqlite.Statement<[string], Row>
  readonly #unused: Sqlite.Statement<[], Row>
  readonly #committed: Sqlite.Statement<[], Row>
  readonly #extracting: Sqlite.Statement<[], Row>
  readonly #totals: Sqlite.Statement<[], { size: number; inodes: number }>

  constructor(db: Sqlite.Database) {
    this.#get = db.prepare(`SELECT ${COLUMNS} FROM layers WHERE phase = 'committed' AND chain_id = ?`)
    this.#chain = db.prepare(CHAIN)
    this.#unused = db.prepare(UNUSED)
    this.#committed = db.prepare(`SELECT ${COLUMNS} FROM layers WHERE phase = 'committed'`)
    this.#extracting = db.prepare(`SELECT ${COLUMNS} FROM layers WHERE phase = 'extracting'`)
    this.#totals = db.prepare(
      `SELECT coalesce(sum(size), 0) AS size, coalesce(sum(inodes), 0) AS inodes FROM layers`,
    )
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

  /** What garbage collection may delete now, children before parents. */
  unused(): Layer[] {
    return this.#unused.all().map(layerOf)
  }

  committed(): Layer[] {
    return this.#committed.all().map(layerOf)
  }

  /** Intents of a pull that never committed. */
  extracting(): Layer[] {
    return this.#extracting.all().map(layerOf)
  }

  /** Bytes and inodes of all layers. */
  totals(): { size: number; inodes: number } {
    return this.#totals.get() ?? { size: 0, inodes: 0 }
  }
}

export class LayerWriter extends LayerReader {
  readonly #insert: Sqlite.Statement<[string, string, string | null, string, number], { number: number }>
  readonly #commit: Sqlite.Statement<[number, number, string]>
  readonly #delete: Sqlite.Statement<[string]>

  constructor(db: Sqlite.Database) {
    super(db)
    this.#insert = db.prepare(
      `INSERT INTO layers (chain_id, diff_id, parent, blob_digest, blob_size, phase, size, inodes)
       VALUES (?, ?, ?, ?, ?, 'extracting', 0, 0) RETURNING number`,
    )
    this.#commit = db.prepare(
      `UPDATE layers SET phase = 'committed', size = ?, inodes = ? WHERE chain_id = ?`,
    )
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

  commit(chainId: Digest, size: number, inodes: number): void {
    this.#commit.run(size, inodes, chainId)
  }

  delete(chainId: Digest): void {
    this.#delete.run(chainId)
  }
}

function layerOf(row: Row): Layer {
  return {
    chainId: row.chain_id,
    diffId: row.diff_id,
    ...(row.parent === null ? {} : { parent: row.parent }),
    dir: String(row.number),
    size: row.size,
    inodes: row.inodes,
  }
}
