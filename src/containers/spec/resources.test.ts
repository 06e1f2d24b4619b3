import assert from 'node:assert/strict'
import { test } from 'node:test'
import { someResources } from '../../../test/support/spec-input.ts'
import type { LinuxResources } from '../../model/security.ts'
import { checkResources, mergeResources, toOciResources } from './resources.ts'

const v2 = { cgroupVersion: 2, swapAccounting: true, hugepageSizes: ['2MB', '1GB'] } as const
const v1 = { cgroupVersion: 1, swapAccounting: false, hugepageSizes: [] } as const

function refused(set: Partial<LinuxResources>, message: RegExp, host: typeof v1 | typeof v2 = v2): void {
  assert.throws(() => checkResources('linux', someResources(set), host), { code: 'invalid', message })
}

test('what is unset is left out', () => {
  assert.deepEqual(toOciResources(someResources({}), v2), {})
})

test('cpu and memory', () => {
  const set = { cpuShares: 512, cpuQuota: 50_000, cpuPeriod: 100_000, cpusetCpus: '0-1,3', cpusetMems: '0' }
  assert.deepEqual(toOciResources(someResources({ ...set, memoryLimit: 1 << 20 }), v2), {
    cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: '0-1,3', mems: '0' },
    memory: { limit: 1 << 20, swap: 1 << 20 },
  })
})

test('swap: none beside a limit, as asked, unlimited, and never where it is not counted', () => {
  const memory = (set: Partial<LinuxResources>, host: typeof v1 | typeof v2 = v2) =>
    toOciResources(someResources(set), host).memory
  assert.deepEqual(memory({ memoryLimit: 100, memorySwapLimit: 150 }), { limit: 100, swap: 150 })
  assert.deepEqual(memory({ memoryLimit: 100, memorySwapLimit: -1 }), { limit: 100, swap: -1 })
  assert.deepEqual(memory({ memoryLimit: 2 ** 63 }), { limit: -1, swap: -1 })
  assert.deepEqual(memory({ memoryLimit: 100, memorySwapLimit: 150 }, v1), { limit: 100 })
})

test('hugepages only with their controller, unified only on v2', () => {
  const hugepageLimits = [{ pageSize: '2MB', limit: 0 }]
  assert.deepEqual(toOciResources(someResources({ hugepageLimits }), v2), { hugepageLimits })
  assert.deepEqual(toOciResources(someResources({ hugepageLimits }), v1), {})
  const other = [{ pageSize: '64KB', limit: 0 }]
  assert.deepEqual(toOciResources(someResources({ hugepageLimits: other }), v2), {})
  const unified = { 'memory.oom.group': '1' }
  assert.deepEqual(toOciResources(someResources({ unified }), v2), { unified })
  refused({ unified }, /^linux\.unified: needs cgroup v2/, v1)
})

test('what the kernel would refuse is refused by field', () => {
  refused({ cpuQuota: 999 }, /cpu_quota/)
  refused({ cpuQuota: -2 }, /cpu_quota/)
  refused({ cpuPeriod: 10 }, /cpu_period/)
  refused({ cpuPeriod: 2_000_000 }, /cpu_period/)
  refused({ cpuShares: -1 }, /cpu_shares/)
  refused({ cpuShares: 1 }, /cpu_shares/)
  refused({ cpuShares: 262_145 }, /cpu_shares/)
  refused({ memoryLimit: -5 }, /memory_limit_in_bytes/)
  refused({ memoryLimit: 1.5 }, /memory_limit_in_bytes/)
  refused({ memoryLimit: 100, memorySwapLimit: 50 }, /memory_swap_limit_in_bytes.*memory and swap/)
  refused({ memorySwapLimit: 50 }, /memory_swap_limit_in_bytes.*memory_limit_in_bytes/)
  refused({ cpusetCpus: '0;rm' }, /cpuset_cpus/)
  refused({ cpusetMems: '0-' }, /cpuset_mems/)
  refused({ hugepageLimits: [{ pageSize: '../2MB', limit: 1 }] }, /page_size/)
  refused(
    { hugepageLimits: [{ pageSize: '64KB', limit: 65_536 }] },
    /page_size: .*this node has \(2MB, 1GB\), got "64KB"/,
  )
})

test('unified names no file but that of a controller, and one value', () => {
  for (const key of ['../x', 'memory', 'memory/max', 'cgroup.procs', 'memory.', '', 'memory..max']) {
    refused({ unified: { [key]: '1' } }, /file name of a controller/)
  }
  refused({ unified: { 'memory.max': '1\0' } }, /memory\.max/)
})

test('an update leaves what it does not name', () => {
  const before = someResources({
    cpuShares: 2,
    memoryLimit: 100,
    cpusetCpus: '0',
    hugepageLimits: [
      { pageSize: '2MB', limit: 1 },
      { pageSize: '1GB', limit: 1 },
    ],
    unified: { 'memory.high': '1' },
  })
  const update = someResources({
    cpuQuota: 5000,
    memoryLimit: 200,
    hugepageLimits: [{ pageSize: '2MB', limit: 0 }],
    unified: { 'memory.low': '2' },
  })
  assert.deepEqual(
    mergeResources(before, update),
    someResources({
      cpuShares: 2,
      cpuQuota: 5000,
      memoryLimit: 200,
      cpusetCpus: '0',
      hugepageLimits: [
        { pageSize: '2MB', limit: 0 },
        { pageSize: '1GB', limit: 1 },
      ],
      unified: { 'memory.high': '1', 'memory.low': '2' },
    }),
  )
  assert.equal(mergeResources(undefined, update), update)
})

test('lists and maps that no honest request has are refused', () => {
  const keys = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`memory.key${i}`, '1']))
  checkResources('linux', someResources({ unified: keys(64) }), v2)
  refused({ unified: keys(65) }, /^linux\.unified: at most 64 entries/)
  const limits = (length: number) => Array.from({ length }, () => ({ pageSize: '2MB', limit: 0 }))
  checkResources('linux', someResources({ hugepageLimits: limits(64) }), v2)
  refused({ hugepageLimits: limits(65) }, /hugepage_limits: .*at most 64 entries, got 65/)
})
