import assert from 'node:assert/strict'
import { test } from 'node:test'
import { countersThrough, networkUsage } from './pod-network-usage.ts'

const counters = (name: string, rxBytes = 0n) => ({
  name,
  rxBytes,
  rxPackets: 4n,
  rxDropped: 5n,
  txPackets: 6n,
  txDropped: 7n,
  rxErrors: 1n,
  txBytes: 2n,
  txErrors: 3n,
})

test("the pod's interface stands apart, loopback shows nowhere", () => {
  const [lo, eth0, net1] = [counters('lo'), counters('eth0', 9n), counters('net1')]
  const usage = networkUsage([lo, eth0, net1])
  assert.deepEqual(usage?.defaultInterface, eth0)
  assert.deepEqual(usage?.interfaces, [net1])
  assert.ok(usage !== undefined && usage.timestamp > 0n)
})

test('the attachment names the interface', () => {
  const usage = networkUsage([counters('eth0'), counters('net1')], 'net1')
  assert.equal(usage?.defaultInterface.name, 'net1')
  assert.deepEqual(
    usage?.interfaces.map(({ name }) => name),
    ['eth0'],
  )
})

test("without the pod's interface there are no figures to be mistaken for its own", () => {
  assert.equal(networkUsage([counters('lo'), counters('net1')]), undefined)
})

test('a process in the namespace shows its counters, whatever others are asked before it', () => {
  // A pid beyond the largest the kernel gives (2²²), one that is gone.
  const found = countersThrough([2 ** 22 + 1, process.pid], '/proc/self/ns/net')
  assert.ok(found?.some(({ name }) => name === 'lo'))
})

test('a process elsewhere, or no namespace at all, shows nothing', () => {
  assert.equal(countersThrough([process.pid], '/proc/self/ns/uts'), undefined)
  assert.equal(countersThrough([process.pid], '/nonexistent/net'), undefined)
  assert.equal(countersThrough([], '/proc/self/ns/net'), undefined)
})
