import assert from 'node:assert/strict'
import { test } from 'node:test'
import { folderOf } from './layers.ts'
import { isTest, type Source, sourcesIn } from './sources.ts'

const sources = sourcesIn('src').filter(source => !isTest(source))

/** Worker threads and worker processes: their own main files. */
const WORKER_ENTRY = /^src\/(os|storage)\/[a-z-]+-worker\.ts$/
const DRIVERS = ['runtime', 'network', 'storage', 'registry']

function importersOf(name: RegExp, allowed: (source: Source) => boolean): string[] {
  return sources
    .filter(source => source.imports.some(path => name.test(path)) && !allowed(source))
    .map(source => source.path)
}

function usersOf(pattern: RegExp, allowed: (source: Source) => boolean): string[] {
  return sources
    .filter(source => !allowed(source))
    .flatMap(source =>
      withoutComments(source.text)
        .split('\n')
        .filter(line => pattern.test(line))
        .map(line => `${source.path}: ${line.trim()}`),
    )
}

/** Whole-line and block comments, in which a word is no use of it. */
function withoutComments(text: string): string {
  return text.replace(/^\s*(\/\/.*|\/\*[\s\S]*?\*\/)$/gm, '')
}

const within = (folder: string) => (source: Source) => folderOf(source.path) === folder

test('only os/ starts processes and threads and calls the kernel', () => {
  assert.deepEqual(importersOf(/^(node:(child_process|worker_threads|cluster)|koffi)$/, within('os')), [])
})

test("nobody reads the thread's errno, which may be that of a later call", () => {
  assert.deepEqual(
    usersOf(/\bkoffi\.errno\b/, () => false),
    [],
  )
})

test('only state/ knows the database', () => {
  assert.deepEqual(importersOf(/^(better-sqlite3|node:sqlite)$/, within('state')), [])
  const sql =
    /\b(SELECT\s.*\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|PRAGMA)\b/
  assert.deepEqual(usersOf(sql, within('state')), [])
})

test('drivers do not know the database', () => {
  assert.deepEqual(
    importersOf(/^src\/state\//, source => !DRIVERS.includes(folderOf(source.path))),
    [],
  )
})

test('only cri/ knows gRPC and protobuf', () => {
  assert.deepEqual(importersOf(/^(@grpc\/|protobufjs\b)/, within('cri')), [])
})

test('only config/ reads the environment', () => {
  assert.deepEqual(usersOf(/\bprocess\.env\b|\benv\b.*\bfrom 'node:process'/, within('config')), [])
})

test('only entry points end the process', () => {
  const allowed = (source: Source) =>
    ['main.ts', 'daemon.ts', 'cli'].includes(folderOf(source.path)) || WORKER_ENTRY.test(source.path)
  assert.deepEqual(usersOf(/\bprocess\.(exit|abort|reallyExit)\(/, allowed), [])
})

test('nothing is printed past the log and the commands', () => {
  assert.deepEqual(usersOf(/\bconsole\.\w+\(/, within('cli')), [])
})

test('TypeScript stays erasable, and no folder has a barrel', () => {
  const barrels = sources.filter(source => /\/index\.ts$/.test(source.path)).map(source => source.path)
  assert.deepEqual(barrels, [])
})
