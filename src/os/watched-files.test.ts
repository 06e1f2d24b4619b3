import assert from 'node:assert/strict'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { WatchedFiles } from './watched-files.ts'

test('what is made from files is made again when one appeared, changed or went, and only then', t => {
  const directory = mkdtempSync(join(tmpdir(), 'watched-files-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'a')
  let loads = 0
  const watched = new WatchedFiles(
    () => [file],
    () => ++loads,
  )
  assert.deepEqual([watched.current(), watched.current()], [1, 1])
  writeFileSync(file, 'one')
  assert.deepEqual([watched.current(), watched.current()], [2, 2])
  // Of the same size, in its place: the inode is another.
  writeFileSync(`${file}.new`, 'two')
  renameSync(`${file}.new`, file)
  assert.equal(watched.current(), 3)
  rmSync(file)
  assert.deepEqual([watched.current(), watched.current()], [4, 4])
})

test('what cannot be loaded is tried again the next time', () => {
  let broken = true
  const watched = new WatchedFiles(
    () => ['/nowhere/at/all'],
    () => {
      if (broken) throw new Error('broken')
      return 'whole'
    },
  )
  assert.throws(() => watched.current(), /broken/)
  assert.throws(() => watched.current(), /broken/)
  broken = false
  assert.equal(watched.current(), 'whole')
})
