import { chmodSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'

/** What the directories and the cgroup of the fixtures' daemon are called. */
const NODE = 'BERTH-NODE'

function scriptOf(version: number): string {
  return readFileSync(join(import.meta.dirname, `../fixtures/schema-${version}.sql`), 'utf8')
}

/**
 * Makes the database that a build with this schema wrote, with pods, containers and layers in every phase.
 * @param node name of the directories in /var/lib and /run and of the cgroup that its rows are about
 */
export function makeOldDatabase(file: string, version: number, node = 'berth-old'): void {
  const database = new Sqlite(file)
  database.pragma('journal_mode = WAL')
  database.exec(`BEGIN; ${scriptOf(version).replaceAll(NODE, node)}; COMMIT`)
  database.close()
  chmodSync(file, 0o600)
}

type Row = Readonly<Record<string, unknown>>

/** All rows of all tables, in a fixed order; times as bigint. */
export function rowsOf(file: string): Record<string, Row[]> {
  return read(file, database =>
    Object.fromEntries(
      tablesOf(database).map(table => {
        const rows = database.prepare(`SELECT * FROM ${table}`).safeIntegers(true).all() as Row[]
        return [table, rows.toSorted((a, b) => (textOf(a) < textOf(b) ? -1 : 1))]
      }),
    ),
  )
}

/** The statements that made the tables and indices. */
export function schemaOf(file: string): string[] {
  return read(file, database =>
    database
      .prepare<[], string>(`SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name`)
      .pluck()
      .all(),
  )
}

export function versionOf(file: string): number {
  return read(file, database => Number(database.pragma('user_version', { simple: true })))
}

/** Where in the file a table begins. */
export function pageOf(file: string, table: string): number {
  return read(file, database => {
    const page = database.prepare('SELECT rootpage FROM sqlite_schema WHERE name = ?').pluck().get(table)
    return (Number(page) - 1) * Number(database.pragma('page_size', { simple: true }))
  })
}

/**
 * Turns a database of this build into what a build with an earlier schema would have written: its tables with their
 * columns, and of the rows what these columns hold. The schema comes from the fixture, so from that build itself.
 */
export function takeBack(file: string, version: number): void {
  const aside = `${file}.old`
  makeOldDatabase(aside, version)
  const database = new Sqlite(file)
  try {
    database.pragma('foreign_keys = OFF')
    database.exec(`ATTACH '${aside}' AS old; BEGIN`)
    for (const table of tablesOf(database, 'old')) {
      const columns = database
        .prepare<[string], string>(`SELECT name FROM pragma_table_info(?, 'old')`)
        .pluck()
        .all(table)
      database.exec(`DELETE FROM old.${table}; INSERT INTO old.${table} SELECT ${columns} FROM main.${table}`)
    }
    database.exec(
      'UPDATE old.sqlite_sequence SET seq = (SELECT seq FROM main.sqlite_sequence); COMMIT; DETACH old',
    )
  } finally {
    database.close()
  }
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${file}${suffix}`, { force: true })
  renameSync(aside, file)
}

function tablesOf(database: Sqlite.Database, schema = 'main'): string[] {
  return database
    .prepare<[], string>(
      `SELECT name FROM ${schema}.sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence' ORDER BY name`,
    )
    .pluck()
    .all()
}

function textOf(row: Row): string {
  return JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? String(value) : value))
}

function read<T>(file: string, look: (database: Sqlite.Database) => T): T {
  const database = new Sqlite(file, { readonly: true })
  try {
    return look(database)
  } finally {
    database.close()
  }
}
