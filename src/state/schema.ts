import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { effectSync } from '../base/effects.ts'
import { BerthError, messageOf, precondition } from '../base/errors.ts'
import { initial } from './migrations/001-initial.ts'
import { imageTruth } from './migrations/002-image-truth.ts'
import { imageSignatures } from './migrations/003-image-signatures.ts'
import { selinuxLevels } from './migrations/004-selinux.ts'

/** Append only: the schema version is the number of migrations that ran. */
const MIGRATIONS: readonly string[] = [initial, imageTruth, imageSignatures, selinuxLevels]

/** What this build reads and writes; older ones are brought up to it. */
export const SCHEMA_VERSION = MIGRATIONS.length

/** "BRTH" in the file's header: tells Berth's database from anyone else's. */
const APPLICATION_ID = 0x42525448

/**
 * Looks at a database without changing a byte of it.
 * @throws BerthError precondition if this build must not touch it; SqliteError if it cannot be read
 */
export function checkDatabase(file: string): void {
  const db = new Sqlite(file, { readonly: true, fileMustExist: true })
  try {
    const owner = db.pragma('application_id', { simple: true })
    const version = Number(db.pragma('user_version', { simple: true }))
    const isEmpty = db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() === 0
    if (!isEmpty && owner !== APPLICATION_ID) {
      throw precondition(`${file} is a database of another program; choose another root directory`)
    }
    if (version > SCHEMA_VERSION) throw precondition(tooNew(file, version))
    // A page that is damaged is found now, and not by the call that happens to need it: 27 ms for 20 MB.
    const problem = db.pragma('quick_check(1)', { simple: true })
    if (problem !== 'ok') throw precondition(damaged(file, String(problem)))
  } finally {
    db.close()
  }
}

/**
 * Brings the schema up to date, in one transaction: whatever ends it, the database is as it was, and an earlier build
 * still opens it. Before that a copy is put beside it, for who wants to go back.
 */
export function migrate(db: Sqlite.Database, file: string): void {
  const version = Number(db.pragma('user_version', { simple: true }))
  if (version === SCHEMA_VERSION) return
  if (version > 0) keepCopy(db, file, version)
  const apply = db.transaction(() => {
    for (const [index, sql] of MIGRATIONS.entries()) {
      if (index < version) continue
      effectSync('state', 'migrate', `schema ${index + 1}`, () => db.exec(sql))
    }
    db.pragma(`application_id = ${APPLICATION_ID}`)
    db.pragma(`user_version = ${SCHEMA_VERSION}`)
    effectSync('state', 'migrate', 'commit', () => undefined)
  })
  apply.immediate()
  if (version > 0) dropOtherCopies(file, version)
}

/** Where the copy is that was made of a database of that schema before it was changed. */
function copyPath(file: string, version: number): string {
  return `${file}.schema-${version}`
}

function keepCopy(db: Sqlite.Database, file: string, version: number): void {
  const copy = copyPath(file, version)
  const unfinished = `${copy}.tmp`
  effectSync('state', 'copy-database', copy, () => {
    try {
      rmSync(unfinished, { force: true })
      db.prepare('VACUUM INTO ?').run(unfinished)
      syncPath(unfinished)
      renameSync(unfinished, copy)
      syncPath(dirname(copy))
    } catch (error) {
      rmSync(unfinished, { force: true, recursive: true })
      throw new BerthError(
        'precondition',
        `${file} has schema version ${version} and was left as it is, since no copy of it can be kept beside it: ` +
          `${messageOf(error)}; make room for one more file of its size`,
        error,
      )
    }
  })
}

/** One is kept, of the schema that was there last: each is as large as the database. */
function dropOtherCopies(file: string, version: number): void {
  const own = basename(copyPath(file, version))
  for (const name of readdirSync(dirname(file))) {
    if (name.startsWith(`${basename(file)}.schema-`) && name !== own) rmSync(join(dirname(file), name))
  }
}

function syncPath(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function tooNew(file: string, version: number): string {
  return (
    `${file} has schema version ${version}, this berth knows versions up to ${SCHEMA_VERSION}; start the newer ` +
    `berth that wrote it, or put back the copy that was made before it was changed ` +
    `(${copyPath(basename(file), SCHEMA_VERSION)}, see upgrades.md)`
  )
}

/** @param problem SQLite's words */
export function damaged(file: string, problem: string): string {
  return (
    `${file} is damaged: ${problem.trim().replaceAll(/\s*\n\s*/g, '; ')}; restore it, or move it away together with ` +
    `${basename(file)}-wal and -shm: berth then begins with an empty one, ends the pods that it finds and pulls images again`
  )
}
