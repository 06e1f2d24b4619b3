import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isApparmorLoaded } from './apparmor.ts'

test('a loaded AppArmor profile is found by its whole name', t => {
  const directory = mkdtempSync(join(tmpdir(), 'apparmor-test-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'profiles')
  writeFileSync(file, '/usr/bin/man (enforce)\nmy profile (complain)\n')
  assert.equal(isApparmorLoaded('my profile', file), true)
  assert.equal(isApparmorLoaded('my', file), false)
  assert.equal(isApparmorLoaded('my profile (complain)', file), false)
  assert.equal(isApparmorLoaded('anything', join(directory, 'none')), true)
})
