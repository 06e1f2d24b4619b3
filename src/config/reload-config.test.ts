import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Flags, loadConfig } from './load-config.ts'
import { reloadConfig } from './reload-config.ts'

function load(flags: Flags = {}) {
  return loadConfig({ flags: { 'config-dir': [''], ...flags }, env: {} }).config
}

test('reloadable keys are taken over, the others wait for a restart', () => {
  const running = load()
  const next = load({ 'log-level': ['debug'], 'pids-limit': ['7'], root: ['/x'], runtimes: ['crun:/c'] })
  const { config, applied, needRestart } = reloadConfig(running, next)
  assert.deepEqual(applied, ['crio.runtime.log_level'])
  assert.deepEqual([...needRestart].sort(), [
    'crio.root',
    'crio.runtime.pids_limit',
    'crio.runtime.runtimes.crun',
  ])
  assert.equal(config.runtime.logLevel, 'debug')
  assert.equal(config.runtime.pidsLimit, -1)
  assert.equal(config.root, running.root)
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.runtime))
})

test('nothing changed, nothing to do', () => {
  const { config, applied, needRestart } = reloadConfig(load(), load())
  assert.deepEqual({ applied, needRestart }, { applied: [], needRestart: [] })
  assert.deepEqual(config.runtime, load().runtime)
})
