import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isCode } from '../base/errors.ts'
import { sysctlPath } from './namespace-calls.ts'

test('names with dots, with slashes, and with a dot inside a part', () => {
  assert.equal(sysctlPath('net.ipv4.ip_forward'), '/proc/sys/net/ipv4/ip_forward')
  assert.equal(sysctlPath('kernel/shm_rmid_forced'), '/proc/sys/kernel/shm_rmid_forced')
  assert.equal(sysctlPath('net.ipv4.conf.eth0/100.rp_filter'), '/proc/sys/net/ipv4/conf/eth0.100/rp_filter')
  assert.equal(sysctlPath('net/ipv4/conf/eth0.100/rp_filter'), '/proc/sys/net/ipv4/conf/eth0.100/rp_filter')
})

test('nothing leads out of /proc/sys', () => {
  const bad = [
    '',
    '.',
    '/',
    'net/../../kernel/core_pattern',
    'net.//./x',
    '..kernel',
    'a..b',
    'a/./b',
    'kernel.',
  ]
  for (const key of [...bad, 'net.ipv4.ip forward', 'net.x\n', 'net.x\0', 'net.x+y']) {
    assert.throws(
      () => sysctlPath(key),
      error => isCode(error, 'invalid'),
      key,
    )
  }
})
