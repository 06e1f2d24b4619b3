import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearest } from './nearest.ts'

const keys = ['cgroup_manager', 'conmon', 'conmon_env', 'conmon_cgroup', 'log_level', 'root', 'runroot']

test('typing mistakes find what was meant', () => {
  const mistakes = {
    cgroup_manger: 'cgroup_manager',
    conmon_enb: 'conmon_env',
    loglevel: 'log_level',
    log_levle: 'log_level',
    orot: 'root',
  }
  for (const [typed, meant] of Object.entries(mistakes)) assert.equal(nearest(typed, keys), meant)
})

test('something else finds nothing', () => {
  assert.equal(nearest('registries', keys), undefined)
  assert.equal(nearest('x', []), undefined)
})
