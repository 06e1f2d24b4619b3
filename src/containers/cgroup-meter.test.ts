import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CgroupStats } from '../os/cgroup/cgroup.ts'
import { CgroupMeter } from './cgroup-meter.ts'

const SECOND = 1_000_000_000n

type Figures = { usageNs?: bigint; memory?: Partial<CgroupStats['memory']>; pressure?: bigint }

function statsOf({ usageNs = 1n, memory = {}, pressure }: Figures): CgroupStats {
  const line = (total: bigint) => ({ avg10: 1.5, avg60: 0.5, avg300: 0, total })
  const lines = (total: bigint) => ({ some: line(total), full: line(total + 1n) })
  return {
    timestamp: 77n,
    cpu: { usageNs, userNs: 0n, systemNs: 0n, periods: 0n, throttledPeriods: 0n, throttledNs: 0n },
    memory: {
      usage: 100n,
      reservation: 0n,
      limit: 0n,
      maxUsage: 100n,
      workingSet: 60n,
      rss: 40n,
      cache: 50n,
      mappedFile: 0n,
      pageFaults: 9n,
      majorPageFaults: 2n,
      ...memory,
    },
    pids: { current: 3n, limit: 0n },
    ...(pressure === undefined
      ? {}
      : { pressure: { cpu: lines(pressure), memory: lines(pressure * 2n), io: lines(pressure * 3n) } }),
  }
}

/** A meter whose group and clock the test moves. */
function meterOf(figures: Figures | undefined) {
  const world = { figures, ns: 5n }
  const stats = () => (world.figures === undefined ? undefined : statsOf(world.figures))
  const meter = new CgroupMeter({ stats }, () => world.ns)
  const rateAfter = (ns: bigint, usageNs: bigint) => {
    world.ns += ns
    world.figures = { usageNs }
    return meter.read('id', '/group')?.cpu?.nanoCores
  }
  return { meter, world, rateAfter }
}

test('the first sample has no rate, the second that since the first', () => {
  const { rateAfter } = meterOf({})
  assert.equal(rateAfter(0n, 10n), undefined)
  assert.equal(rateAfter(4n * SECOND, 10n + 2n * SECOND), SECOND / 2n)
  assert.equal(rateAfter(2n * SECOND, 10n + 2n * SECOND), 0n)
})

test('readings less than a second after a sample give its rate again and leave it where it is', () => {
  const { rateAfter } = meterOf({})
  rateAfter(0n, SECOND)
  assert.equal(rateAfter(SECOND / 2n, 9n * SECOND), undefined)
  assert.equal(rateAfter(SECOND / 2n, 3n * SECOND), 2n * SECOND)
  assert.equal(rateAfter(SECOND - 1n, 9n * SECOND), 2n * SECOND)
  assert.equal(rateAfter(1n, 4n * SECOND), SECOND)
})

test('a counter that fell has no rate, and is where the next one starts from', () => {
  const { rateAfter } = meterOf({})
  rateAfter(0n, 9n * SECOND)
  assert.equal(rateAfter(SECOND, SECOND), undefined)
  assert.equal(rateAfter(SECOND, 2n * SECOND), SECOND)
})

test('groups have samples of their own, until they are forgotten', () => {
  const { meter, rateAfter } = meterOf({})
  rateAfter(0n, SECOND)
  rateAfter(SECOND, 2n * SECOND)
  assert.equal(meter.read('other', '/group')?.cpu?.nanoCores, undefined)
  meter.forget('id')
  assert.equal(rateAfter(SECOND, 3n * SECOND), undefined)
})

test('memory is available only up to a limit, and never less than none', () => {
  const available = (memory: Figures['memory']) =>
    meterOf({ memory: memory! }).meter.read('id', '/group')?.memory?.available
  assert.equal(available({ limit: 0n }), undefined)
  assert.equal(available({ limit: 100n }), 40n)
  assert.equal(available({ limit: 50n }), 0n)
})

test('swap shows where the kernel accounts it', () => {
  const swap = (memory: Figures['memory']) => meterOf({ memory: memory! }).meter.read('id', '/group')?.swap
  assert.equal(swap({}), undefined)
  assert.deepEqual(swap({ swap: 4n, swapLimit: 0n }), { timestamp: 77n, available: undefined, usage: 4n })
  assert.deepEqual(swap({ swap: 4n, swapLimit: 10n }), { timestamp: 77n, available: 6n, usage: 4n })
})

test('each resource has its own pressure, where the kernel has any', () => {
  const averages = { avg10: 1.5, avg60: 0.5, avg300: 0 }
  const psi = (total: bigint) => ({
    some: { totalNs: total, ...averages },
    full: { totalNs: total + 1n, ...averages },
  })
  const usage = meterOf({ pressure: 1000n }).meter.read('id', '/group')
  assert.deepEqual(usage?.cpu?.psi, psi(1000n))
  assert.deepEqual(usage?.memory?.psi, psi(2000n))
  assert.deepEqual(usage?.io, { timestamp: 77n, psi: psi(3000n) })
  const without = meterOf({}).meter.read('id', '/group')
  assert.equal(without?.io, undefined)
  assert.equal(without?.cpu?.psi, undefined)
})

test('a group that is gone, or going while it is read, has no zeros for figures', () => {
  assert.equal(meterOf(undefined).meter.read('id', '/group'), undefined)
  const going = meterOf({ usageNs: 0n, memory: { usage: 0n } }).meter.read('id', '/group')
  assert.equal(going?.cpu, undefined)
  assert.equal(going?.memory, undefined)
})
