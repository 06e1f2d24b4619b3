import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNetwork } from './cni-config.ts'
import { netnsFirstDelIsSafe } from './netns-first.ts'

function isSafe(...plugins: object[]): boolean {
  return netnsFirstDelIsSafe(parseNetwork({ cniVersion: '1.0.0', name: 'n', plugins }))
}

const bridge = { type: 'bridge', ipam: { type: 'host-local' } }

test('networks that keep nothing on the host allow it', () => {
  assert.equal(isSafe(bridge), true)
  assert.equal(isSafe({ ...bridge, ipMasq: false }, { type: 'portmap' }, { type: 'bandwidth' }), true)
  assert.equal(
    isSafe({ ...bridge, type: 'ptp' }, { type: 'tuning', sysctl: { 'net.core.somaxconn': '500' } }),
    true,
  )
})

test('rules that are found by the address inside the pod forbid it', () => {
  assert.equal(isSafe({ ...bridge, ipMasq: true }), false)
  assert.equal(isSafe({ ...bridge, type: 'ptp', ipMasq: true }), false)
  assert.equal(isSafe({ ...bridge, macspoofchk: true }), false)
  assert.equal(isSafe(bridge, { type: 'tuning', mtu: 1400 }), false)
})

test('one plugin that is not known forbids it', () => {
  assert.equal(isSafe({ type: 'calico' }), false)
  assert.equal(isSafe(bridge, { type: 'firewall' }), false)
  assert.equal(isSafe({ type: 'bridge', ipam: { type: 'dhcp' } }), false)
})
