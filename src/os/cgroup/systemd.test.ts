import assert from 'node:assert/strict'
import { test } from 'node:test'
import { propertiesOf } from './systemd.ts'

test('resources become the properties of a unit', () => {
  assert.deepEqual(
    propertiesOf({
      cpu: { shares: 1024, quota: 75_000, period: 50_000, cpus: '0-1', mems: '0' },
      memory: { limit: 64, swap: 96, reservation: 32 },
      pids: { limit: 10 },
    }),
    [
      'CPUWeight=39',
      'CPUQuotaPeriodSec=50000us',
      'CPUQuota=150%',
      'AllowedCPUs=0-1',
      'AllowedMemoryNodes=0',
      'MemoryMax=64',
      'MemorySwapMax=32',
      'MemoryLow=32',
      'TasksMax=10',
    ],
  )
})

test('no limit is said as systemd says it, and what is not given stays', () => {
  assert.deepEqual(
    propertiesOf({ cpu: { quota: -1 }, memory: { limit: -1, swap: -1 }, pids: { limit: 0 } }),
    ['CPUQuota=', 'MemoryMax=infinity', 'MemorySwapMax=infinity', 'TasksMax=infinity'],
  )
  assert.deepEqual(propertiesOf({ cpu: { shares: 0 }, memory: { swap: 0 } }), [])
})
