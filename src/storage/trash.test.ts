import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { until } from '../../test/support/wait.ts'
import { Trash } from './trash.ts'

test('a folder that cannot be looked through is tried again until it is empty, and never said to be before', async t => {
  const root = mkdtempSync(join(tmpdir(), 'berth-trash-'))
  t.after(() => rmSync(root, { recursive: true }))
  const [dir, away, thing] = [join(root, 'trash'), join(root, 'away'), join(root, 'thing')]
  mkdirSync(dir)
  mkdirSync(thing)
  const said: string[] = []
  const say = (_: object, message: string) => void said.push(message)
  const log = { info: say, warn: say, error: say }
  const trash = new Trash(dir, log, 10)
  trash.discard(thing)
  assert.ok(!existsSync(thing))
  renameSync(dir, away)
  assert.match((await trash.emptied()) ?? '', /trash cannot be emptied: ENOENT/)
  await until('it was tried again', () => said.includes('what had failed has failed again'))
  assert.ok(!said.includes('what had failed is done'))
  renameSync(away, dir)
  await until('it is empty', () => readdirSync(dir).length === 0)
  assert.equal(await trash.emptied(), undefined)
  await trash.close()
})
