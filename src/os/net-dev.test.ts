import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNetDev } from './net-dev.ts'

test('interfaces and their counters, also without a space after the colon', () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     120       2    0    0    0     0          0         0      120       2    0    0    0     0       0          0
  eth0:18446744073709551615 9 3 8 0 0 0 0 77 5 4 6 0 0 0 0
`
  assert.deepEqual(parseNetDev(text), [
    {
      name: 'lo',
      ...{ rxBytes: 120n, rxPackets: 2n, rxErrors: 0n, rxDropped: 0n },
      ...{ txBytes: 120n, txPackets: 2n, txErrors: 0n, txDropped: 0n },
    },
    {
      name: 'eth0',
      ...{ rxBytes: 18446744073709551615n, rxPackets: 9n, rxErrors: 3n, rxDropped: 8n },
      ...{ txBytes: 77n, txPackets: 5n, txErrors: 4n, txDropped: 6n },
    },
  ])
})
