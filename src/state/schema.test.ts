import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import Sqlite from 'better-sqlite3'
import { makeOldDatabase, rowsOf, schemaOf, versionOf } from '../../test/support/old-database.ts'
import { digestFromHex } from '../base/digest.ts'
import { Database } from './database.ts'
import { SCHEMA_VERSION } from './schema.ts'

/** Of a database that is not there yet. */
function fileFor(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'berth-state-'))
  context.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'berth.db')
}

function oldDatabase(context: TestContext, version: number): string {
  const file = fileFor(context)
  makeOldDatabase(file, version)
  return file
}

function openAndClose(file: string): void {
  Database.open(file).close()
}

/** The database and everything beside it, but the space in reserve. */
function bytesOf(file: string): Record<string, string> {
  const directory = join(file, '..')
  const names = readdirSync(directory).filter(name => /^berth\.db(-wal)?$/.test(name))
  return Object.fromEntries(names.map(name => [name, readFileSync(join(directory, name), 'base64')]))
}

const versions = Array.from({ length: SCHEMA_VERSION }, (_, index) => index + 1)

for (const version of versions) {
  test(`schema ${version}: a database with pods, containers and layers in every phase is brought up to date`, context => {
    const file = oldDatabase(context, version)
    const before = rowsOf(file)
    const db = Database.open(file)
    const { pods, unreadable } = db.read.pods.all()
    const containers = db.read.containers.all()
    assert.deepEqual([unreadable, containers.unreadable], [[], []])
    assert.deepEqual(
      new Set(pods.map(pod => pod.phase)),
      new Set(['creating', 'ready', 'notready', 'removing']),
    )
    assert.deepEqual(
      new Set(containers.containers.map(container => container.phase)),
      new Set(['creating', 'created', 'running', 'exited', 'unknown', 'removing']),
    )
    const attached = pods.filter(pod => pod.networkHeld && pod.phase === 'ready')
    assert.ok(attached.length > 0 && attached.every(pod => pod.network.attachment !== undefined))
    const images = db.read.images.all()
    assert.deepEqual(images.flatMap(image => image.repoTags).sort(), [
      'docker.io/library/busybox:latest',
      'docker.io/library/two:1',
    ])
    for (const image of images) {
      assert.equal(db.read.layers.chain(image.topLayer!).length, image.config.diffIds.length)
      assert.equal(db.read.images.manifests(image.id).length, 1)
      assert.ok(db.read.images.rawConfig(image.id)!.length > 100)
    }
    assert.equal(db.read.layers.extracting().length, 1)
    const layer = { chainId: digestFromHex('9'.repeat(64)), diffId: digestFromHex('9'.repeat(64)) }
    const next = db.transact('the next layer', tx =>
      tx.layers.insertExtracting(layer, { digest: layer.diffId, size: 1 }),
    )
    assert.equal(next, '8', 'numbers that were given once are not given again')
    db.transact('given up', tx => tx.layers.delete(layer.chainId))
    db.close()
    const after = rowsOf(file)
    for (const [table, rows] of Object.entries(before)) {
      const columns = Object.keys(rows[0] ?? {})
      const kept = after[table]!.map(row => Object.fromEntries(columns.map(name => [name, row[name]])))
      assert.deepEqual(kept, rows, table)
    }
  })

  test(`schema ${version}: leads to the same tables as a new database`, context => {
    const file = oldDatabase(context, version)
    const fresh = fileFor(context)
    openAndClose(file)
    openAndClose(fresh)
    assert.deepEqual(schemaOf(file), schemaOf(fresh))
    assert.deepEqual([versionOf(file), versionOf(fresh)], [SCHEMA_VERSION, SCHEMA_VERSION])
  })
}

test('what the first schema did not know has the value that says so', context => {
  const db = Database.open(oldDatabase(context, 1))
  for (const { id, topLayer } of db.read.images.all()) {
    assert.equal(db.read.images.usedAt(id), 0n)
    for (const { seal, damage, verifiedAt } of db.read.layers.chain(topLayer!)) {
      assert.deepEqual([seal, damage, verifiedAt], [undefined, undefined, 0n])
    }
  }
  db.close()
})

test('before its schema is changed a database is copied, as it was; one such copy is kept', context => {
  const file = oldDatabase(context, 1)
  const before = [rowsOf(file), schemaOf(file), versionOf(file)]
  writeFileSync(`${file}.schema-0`, 'of an earlier upgrade')
  openAndClose(file)
  const copy = `${file}.schema-1`
  assert.deepEqual([rowsOf(copy), schemaOf(copy), versionOf(copy)], before)
  assert.equal(existsSync(`${file}.schema-0`), false)
  openAndClose(file)
  assert.ok(existsSync(copy), 'the next start leaves it alone')
  copyFileSync(copy, file)
  openAndClose(file)
  assert.deepEqual([rowsOf(copy), versionOf(file)], [before[0], SCHEMA_VERSION], 'there and back again')
})

test('a database of which no copy can be kept is left as it is', context => {
  const file = oldDatabase(context, 1)
  const before = bytesOf(file)
  mkdirSync(join(`${file}.schema-1`, 'x'), { recursive: true })
  assert.throws(() => Database.open(file), {
    code: 'precondition',
    message: /berth\.db has schema version 1 and was left as it is, since no copy .* make room/,
  })
  assert.deepEqual(bytesOf(file)['berth.db'], before['berth.db'])
  assert.equal(existsSync(`${file}.schema-1.tmp`), false)
  rmSync(`${file}.schema-1`, { recursive: true })
  openAndClose(file)
})

test('a new database, and one that is up to date, leaves no copy', context => {
  const file = fileFor(context)
  openAndClose(file)
  openAndClose(file)
  assert.deepEqual(
    readdirSync(join(file, '..')).filter(name => name.includes('schema')),
    [],
  )
})

/** Opens the database in another process, which kills itself before the effect. @returns whether it came to that */
function killedAt(file: string, point: string): boolean {
  const at = (path: string) => JSON.stringify(new URL(path, import.meta.url).href)
  const script = `
    import { setEffectHook } from ${at('../base/effects.ts')}
    import { FaultHook, parseFaultPlan } from ${at('../observe/fault-plan.ts')}
    import { Database } from ${at('./database.ts')}
    setEffectHook(new FaultHook(parseFaultPlan('kill@${point}')))
    Database.open(${JSON.stringify(file)})`
  const { signal, status, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
  })
  assert.ok(signal === 'SIGKILL' || status === 0, stderr)
  return signal === 'SIGKILL'
}

for (const point of [
  'copy-database',
  ...versions.slice(1).map(n => `migrate=schema ${n}`),
  'migrate=commit',
]) {
  test(`a kill before ${point}: the database is as it was, and the next start brings it up to date`, context => {
    const file = oldDatabase(context, 1)
    const before = rowsOf(file)
    assert.equal(killedAt(file, `state.${point}`), true)
    assert.deepEqual([versionOf(file), rowsOf(file)], [1, before])
    openAndClose(file)
    assert.equal(versionOf(file), SCHEMA_VERSION)
    assert.deepEqual([versionOf(`${file}.schema-1`), rowsOf(`${file}.schema-1`)], [1, before])
    assert.equal(existsSync(`${file}.schema-1.tmp`), false)
  })
}

test('a newer schema is refused, and not a byte changes, also of what its last berth had only in the log', context => {
  const origin = fileFor(context)
  const file = fileFor(context)
  openAndClose(origin)
  const newer = new Sqlite(origin)
  newer.pragma('wal_autocheckpoint = 0')
  newer.exec(`CREATE TABLE later (x); INSERT INTO later VALUES (1); PRAGMA user_version = 99`)
  for (const suffix of ['', '-wal']) copyFileSync(`${origin}${suffix}`, `${file}${suffix}`) // as a kill leaves it
  newer.close()
  const before = bytesOf(file)
  assert.deepEqual(Object.keys(before), ['berth.db', 'berth.db-wal'])
  for (let tries = 0; tries < 2; tries++) {
    assert.throws(() => Database.open(file), {
      code: 'precondition',
      message: new RegExp(
        `berth\\.db has schema version 99, this berth knows versions up to ${SCHEMA_VERSION}; start the newer berth ` +
          `that wrote it, or put back the copy .*berth\\.db\\.schema-${SCHEMA_VERSION}`,
      ),
    })
    assert.deepEqual(bytesOf(file), before)
  }
})

test('a damaged database is refused with what is wrong and what to do, and not a byte changes', context => {
  const file = oldDatabase(context, SCHEMA_VERSION)
  const bytes = readFileSync(file)
  const pageSize = bytes.readUInt16BE(16)
  const last = bytes.length / pageSize - 1
  for (const page of [1, Math.floor(last / 2), last]) {
    const damaged = Buffer.from(bytes)
    damaged.fill(0xa5, page * pageSize, (page + 1) * pageSize)
    writeFileSync(file, damaged)
    assert.throws(() => Database.open(file), {
      code: 'precondition',
      message: /berth\.db is damaged: .+; restore it, or move it away together with berth\.db-wal and -shm: /,
    })
    assert.ok(readFileSync(file).equals(damaged))
  }
  writeFileSync(file, bytes.subarray(0, bytes.length - pageSize))
  assert.throws(() => Database.open(file), /berth\.db is damaged/)
})

test('another program’s database, a text and a missing directory are one clear sentence each', context => {
  const foreign = fileFor(context)
  const other = new Sqlite(foreign)
  other.exec('CREATE TABLE x (y)')
  other.close()
  const before = bytesOf(foreign)
  assert.throws(() => Database.open(foreign), /database of another program/)
  assert.deepEqual(bytesOf(foreign), before)
  const text = fileFor(context)
  writeFileSync(text, 'this is not a database, just some text that is long enough')
  assert.throws(() => Database.open(text), /is not a database/)
  assert.throws(() => Database.open(`${text}.d/berth.db`), /cannot be opened|cannot be written/)
})
