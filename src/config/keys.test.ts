import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FOREIGN_HANDLER_KEYS, FOREIGN_KEYS } from './foreign-keys.ts'
import { HANDLER_KEYS, SECTIONS } from './keys.ts'

const keys = Object.entries(SECTIONS).flatMap(([section, table]) =>
  Object.entries(table).map(([name, key]) => ({ section, name, key })),
)

test('every default is a value of its own kind', () => {
  for (const { name, key } of keys) {
    assert.deepEqual(key.kind.fromToml(key.kind.toToml(key.default)), key.default, name)
  }
})

test('flags and their letters are distinct', () => {
  const flags = keys.map(({ key }) => key.flag)
  assert.equal(new Set([...flags, 'config', 'config-dir', 'runtimes']).size, flags.length + 3)
  const letters = keys.flatMap(({ key }) => key.short ?? [])
  assert.equal(new Set([...letters, 'c', 'd', 'h']).size, letters.length + 3)
  // The command line reads a flag that begins so as the denial of another.
  assert.deepEqual(
    flags.filter(flag => flag.startsWith('no-')),
    [],
  )
})

test('a key is either known or foreign', () => {
  for (const { section, name } of keys) assert.equal(FOREIGN_KEYS[section]?.[name], undefined, name)
  for (const name of Object.keys(HANDLER_KEYS)) assert.equal(FOREIGN_HANDLER_KEYS[name], undefined, name)
})

test('only keys below a table can be reloaded', () => {
  for (const { section, key } of keys) assert.ok(!key.reload || section !== 'crio')
})
