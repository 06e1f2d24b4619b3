import { existsSync, rmSync, writeFileSync } from 'node:fs'
import Sqlite from 'better-sqlite3'
import { effectSync } from '../base/effects.ts'
import { BerthError, internal, messageOf } from '../base/errors.ts'
import { ContainerReader, ContainerWriter } from './containers.ts'
import { ImageReader, ImageWriter } from './images.ts'
import { LayerReader, LayerWriter } from './layers.ts'
import { PodReader, PodWriter } from './pods.ts'
import { checkDatabase, damaged, migrate, SCHEMA_VERSION } from './schema.ts'

/**
 * Space beside the database that is given up when the disk is full: what makes room has to be written down first. A
 * transaction takes some pages of 4 KiB in the log.
 */
const RESERVE_BYTES = 1024 * 1024

export type Reader = {
  readonly pods: PodReader
  readonly containers: ContainerReader
  readonly images: ImageReader
  readonly layers: LayerReader
}

/** Only a transaction can write. */
export type Tx = {
  readonly pods: PodWriter
  readonly containers: ContainerWriter
  readonly images: ImageWriter
  readonly layers: LayerWriter
}

/**
 * The node's metadata: one process, one connection, synchronous transactions. What `transact` returned is on disk
 * (WAL, synchronous=FULL).
 */
export class Database {
  readonly read: Reader
  readonly #tx: Tx
  readonly #db: Sqlite.Database
  readonly #reserve: string
  readonly #file: string
  #problem: string | undefined

  private constructor(db: Sqlite.Database, file: string, { isReadOnly = false } = {}) {
    this.#db = db
    this.#file = file
    this.#reserve = `${file}.reserve`
    if (!isReadOnly) this.keepReserve()
    this.read = {
      pods: new PodReader(db),
      containers: new ContainerReader(db),
      images: new ImageReader(db),
      layers: new LayerReader(db),
    }
    this.#tx = {
      pods: new PodWriter(db),
      containers: new ContainerWriter(db),
      images: new ImageWriter(db),
      layers: new LayerWriter(db),
    }
  }

  /**
   * Opens or makes the database and brings its schema up to date.
   * @throws BerthError precondition: one sentence that names the file and what to do
   */
  static open(file: string): Database {
    let db: Sqlite.Database | undefined
    try {
      if (existsSync(file)) checkDatabase(file)
      db = new Sqlite(file)
      // The first write shows a read-only directory, the first read a file that is no database.
      db.pragma('journal_mode = WAL')
      db.pragma('synchronous = FULL')
      db.pragma('foreign_keys = ON')
      db.pragma('trusted_schema = OFF')
      migrate(db, file)
      return new Database(db, file)
    } catch (error) {
      db?.close()
      if (error instanceof BerthError) throw error
      throw new BerthError('precondition', explainOpenError(file, error), error)
    }
  }

  /**
   * Opens the database of a node whose daemon does not run, and writes nothing.
   * @throws BerthError precondition: one sentence that names the file and what to do
   */
  static openReadOnly(file: string): Database {
    if (!existsSync(file)) {
      throw new BerthError(
        'precondition',
        `there is no ${file}: no daemon has run with this root directory, or somebody removed it; a daemon, or a repair, makes a new one and removes what is left of the pods of the old one`,
      )
    }
    let db: Sqlite.Database | undefined
    try {
      checkDatabase(file)
      db = new Sqlite(file, { readonly: true, fileMustExist: true })
      const version = Number(db.pragma('user_version', { simple: true }))
      if (version < SCHEMA_VERSION) {
        throw new BerthError(
          'precondition',
          `${file} has schema version ${version}, this berth reads ${SCHEMA_VERSION}; start its daemon once`,
        )
      }
      return new Database(db, file, { isReadOnly: true })
    } catch (error) {
      db?.close()
      if (error instanceof BerthError) throw error
      throw new BerthError('precondition', explainOpenError(file, error), error)
    }
  }

  /** What is wrong with the file itself, one sentence each: pages, indexes, references between tables. */
  problems(): string[] {
    const pages = this.#db.pragma('quick_check(20)') as Array<{ quick_check: string }>
    const references = this.#db.pragma('foreign_key_check') as Array<{ table: string; parent: string }>
    return [
      ...pages.map(row => row.quick_check).filter(text => text !== 'ok'),
      ...references
        .slice(0, 20)
        .map(row => `a row of ${row.table} names one of ${row.parent} that is not there`),
    ]
  }

  /**
   * All or nothing. `run` is synchronous: a transaction cannot wait for anything.
   * @param label what is being recorded, for the effect hook
   * @throws BerthError internal, naming the file, if its disk does not take it; whatever `run` throws
   */
  transact<T>(label: string, run: (tx: Tx) => T): T {
    return effectSync('state', 'commit', label, () => this.#commit(() => run(this.#tx)))
  }

  #commit<T>(run: () => T): T {
    const commit = () => {
      const result = this.#db.transaction(run).immediate()
      this.#problem = undefined
      return result
    }
    try {
      try {
        return commit()
      } catch (error) {
        if (sqliteCodeOf(error) !== 'SQLITE_FULL' || !existsSync(this.#reserve)) throw error
        rmSync(this.#reserve, { force: true })
        return commit()
      }
    } catch (error) {
      const problem = explainWriteError(this.#file, error)
      if (problem === undefined) throw error
      // A full disk is nobody's surprise: kubelet watches for it, and what makes room has to go on.
      if (sqliteCodeOf(error) !== 'SQLITE_FULL') this.#problem = problem
      throw internal(problem, error)
    }
  }

  /** Why nothing can be recorded any more, if that is so; as long as it is, each call tries it. */
  problem(): string | undefined {
    if (this.#problem === undefined) return undefined
    try {
      // A write that changes nothing.
      this.#commit(() => this.#db.pragma(`user_version = ${SCHEMA_VERSION}`))
    } catch (error) {
      return messageOf(error)
    }
    return this.#problem
  }

  /** Takes the reserve back as soon as there is room for it. */
  keepReserve(): void {
    if (existsSync(this.#reserve)) return
    try {
      writeFileSync(this.#reserve, Buffer.alloc(RESERVE_BYTES), { mode: 0o600 })
    } catch {
      rmSync(this.#reserve, { force: true }) // a part of it would pass for all of it
    }
  }

  close(): void {
    this.#db.close()
  }
}

function sqliteCodeOf(error: unknown): string {
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code === 'string' && code.startsWith('SQLITE_') ? code : ''
}

/** undefined for what is not the disk's, such as a broken constraint. */
function explainWriteError(file: string, error: unknown): string | undefined {
  const code = sqliteCodeOf(error)
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(code)) return damaged(file, messageOf(error))
  if (!/^SQLITE_(IOERR|READONLY|FULL|CANTOPEN)/.test(code)) return undefined
  return `the database ${file} cannot be written: ${messageOf(error)}`
}

function explainOpenError(file: string, error: unknown): string {
  const code = (error as { code?: unknown }).code
  if (code === 'SQLITE_NOTADB')
    return `${file} is not a database; move it away or choose another root directory`
  if (code === 'SQLITE_CORRUPT') return damaged(file, messageOf(error))
  if (code === 'SQLITE_READONLY' || code === 'SQLITE_CANTOPEN' || code === 'SQLITE_READONLY_DIRECTORY') {
    return `${file} cannot be written: ${messageOf(error)}; is its directory there and writable?`
  }
  return `${file} cannot be opened: ${messageOf(error)}`
}
