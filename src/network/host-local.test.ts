import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseNetwork } from './cni-config.ts'
import { dropLease, leaseDirs, leasesIn, restoreLease } from './host-local.ts'

test('where leases are: by the network, and nowhere without the plugin', () => {
  const dirsOf = (ipam: object) =>
    leaseDirs(parseNetwork({ cniVersion: '1.0.0', name: 'pods', plugins: [{ type: 'bridge', ipam }] }))
  assert.deepEqual(dirsOf({ type: 'host-local' }), ['/var/lib/cni/networks/pods'])
  assert.deepEqual(dirsOf({ type: 'host-local', dataDir: '/x' }), ['/x/pods'])
  assert.deepEqual(dirsOf({ type: 'dhcp' }), [])
})

test('leases are read, restored as the plugin writes them, and dropped by who they are for', t => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-leases-'))
  t.after(() => rmSync(directory, { recursive: true }))
  assert.deepEqual(leasesIn(join(directory, 'none')), [])
  restoreLease(directory, '10.1.0.2', 'pod', 'eth0')
  assert.equal(readFileSync(join(directory, '10.1.0.2'), 'utf8'), 'pod\r\neth0')
  assert.throws(() => restoreLease(directory, '10.1.0.2', 'other', 'eth0'), { code: 'EEXIST' })
  writeFileSync(join(directory, 'last_reserved_ip.0'), '10.1.0.2')
  writeFileSync(join(directory, 'fd00::2'), 'six')
  const leases = leasesIn(directory)
  assert.deepEqual(leases.map(({ address, holder }) => [address, holder]).sort(), [
    ['10.1.0.2', 'pod'],
    ['fd00::2', 'six'],
  ])
  dropLease({ ...leases.find(({ holder }) => holder === 'pod')!, holder: 'other' })
  assert.equal(leasesIn(directory).length, 2)
  for (const lease of leases) dropLease(lease)
  assert.deepEqual(leasesIn(directory), [])
})
