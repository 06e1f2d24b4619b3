import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge } from './expectations.ts'
import type { SpecResult } from './suite.ts'

const withoutApparmor = { apparmor: false, idmap: true, recursiveReadOnly: true }
const withApparmor = { apparmor: true, idmap: true, recursiveReadOnly: true }
const spec = (name: string, state: SpecResult['state'], message = ''): SpecResult => ({
  name,
  state,
  message,
})
const run = (...specs: SpecResult[]) => ({ specs, seconds: 41.2, seed: 7 })

test('what passes, and skips that are expected on this node, are no complaint', () => {
  const { unexpected, table } = judge(
    run(spec('a pod runs', 'passed'), spec('AppArmor is on', 'skipped', 'AppArmor is disabled on this host')),
    withoutApparmor,
  )
  assert.deepEqual(unexpected, [])
  assert.deepEqual(table, [
    '1 passed, 0 failed, 1 skipped of 2 in 41 s (seed 7)',
    '1 skipped: the kernel has no AppArmor',
  ])
})

test('a failure, a skip that is not listed for this node, and a listed one that runs are complaints', () => {
  const { unexpected } = judge(
    run(
      spec('a pod runs', 'failed', 'timed out'),
      spec('stats are there', 'skipped', 'Unimplemented'),
      spec('AppArmor is on', 'skipped', 'AppArmor is disabled on this host'),
    ),
    withApparmor,
  )
  assert.deepEqual(unexpected, [
    'a pod runs: failed, expected to be passed: timed out',
    'stats are there: skipped, expected to be passed: Unimplemented',
    'AppArmor is on: skipped, expected to be passed: AppArmor is disabled on this host',
  ])
  const ran = judge(run(spec('AppArmor is on', 'passed')), withoutApparmor)
  assert.deepEqual(ran.unexpected, ['AppArmor is on: passed, expected to be skipped'])
})
