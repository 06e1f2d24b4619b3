import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { readExitFiles, watchExits } from './exits.ts'

function directories(t: { after(undo: () => void): void }) {
  const root = mkdtempSync(join(tmpdir(), 'berth-exits-'))
  t.after(() => rmSync(root, { recursive: true }))
  const paths = { bundle: join(root, 'b'), persist: join(root, 'p') }
  const exits = join(root, 'e')
  for (const directory of [paths.bundle, paths.persist, exits]) mkdirSync(directory)
  return { exits, paths, read: () => readExitFiles(exits, 'id', paths) }
}

test('nothing yet, then code and time of the persistent file', t => {
  const { paths, read } = directories(t)
  assert.equal(read(), undefined)
  const file = join(paths.persist, 'exit')
  writeFileSync(file, '137')
  assert.deepEqual(read(), { code: 137, finishedAt: statSync(file, { bigint: true }).ctimeNs, oom: false })
  writeFileSync(join(paths.persist, 'oom'), '')
  assert.equal(read()?.oom, true)
})

test('a file that a full disk left empty does not count, the other one does', t => {
  const { exits, paths, read } = directories(t)
  for (const text of ['', 'x', '-1', '256', '1e2']) {
    writeFileSync(join(paths.persist, 'exit'), text)
    assert.throws(read, /expected an exit code, found /, text)
  }
  rmSync(join(paths.persist, 'exit'))
  mkdirSync(join(paths.persist, 'exit'))
  assert.throws(read, /exit: expected a file/)
  writeFileSync(join(exits, 'id'), '3\n')
  assert.equal(read()?.code, 3)
})

test('what is there at the start and at each look is reported, but no temporary name', t => {
  const { exits } = directories(t)
  writeFileSync(join(exits, 'a'), '0')
  writeFileSync(join(exits, 'a.X1'), '0')
  const seen: string[] = []
  const watch = watchExits(
    exits,
    id => seen.push(id),
    error => assert.fail(String(error)),
  )
  try {
    assert.deepEqual(seen, ['a'])
    writeFileSync(join(exits, 'b'), '0')
    watch.rescan()
    assert.deepEqual(seen, ['a', 'a', 'b'])
    rmSync(exits, { recursive: true })
    watch.rescan()
    assert.equal(seen.length, 3)
    mkdirSync(exits)
  } finally {
    watch[Symbol.dispose]()
  }
})

test('without a watch of the directory, looking finds what is there', async t => {
  const { exits } = directories(t)
  rmSync(exits, { recursive: true }) // inotify refuses it, as it does when its limits are reached
  const { promise, resolve } = Promise.withResolvers<string>()
  const watch = watchExits(exits, resolve, error => assert.fail(String(error)))
  const alive = setInterval(() => undefined, 1000)
  try {
    mkdirSync(exits)
    writeFileSync(join(exits, 'late'), '0')
    assert.equal(await promise, 'late')
  } finally {
    clearInterval(alive)
    watch[Symbol.dispose]()
  }
})

test('a directory that cannot be looked at is told, and looked at again', t => {
  const { exits } = directories(t)
  rmSync(exits, { recursive: true })
  symlinkSync('e', exits) // a link to itself
  const problems: string[] = []
  const seen: string[] = []
  const watch = watchExits(
    exits,
    id => seen.push(id),
    error => problems.push(String(error)),
  )
  try {
    assert.match(problems.join(), /ELOOP/)
    rmSync(exits)
    mkdirSync(exits)
    writeFileSync(join(exits, 'a'), '0')
    watch.rescan()
    assert.ok(seen.includes('a'))
  } finally {
    watch[Symbol.dispose]()
  }
})
