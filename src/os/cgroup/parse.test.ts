import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import * as parse from './parse.ts'

test('flat files, with lines that are none', () => {
  const values = parse.parseFlatKeyed('anon 4096\nfile 18446744073709551615\n\nbroken\nx y\n')
  assert.deepEqual(
    [...values],
    [
      ['anon', 4096n],
      ['file', 18446744073709551615n],
    ],
  )
})

test('every way to say "no limit" is 0', () => {
  for (const text of ['max\n', '-1\n', '', '9223372036854771712\n', '9223372036854775807\n']) {
    assert.equal(parse.parseLimit(text), 0n, text)
    assert.equal(parse.parseNumber(text), undefined, text)
  }
  assert.equal(parse.parseLimit('67108864\n'), 67108864n)
  assert.equal(parse.parseNumber('0\n'), 0)
})

test('pressure: shares in per cent, totals in ns; old kernels have no full line for the CPU', () => {
  const some = 'some avg10=1.53 avg60=0.50 avg300=0.00 total=75200\n'
  assert.deepEqual(parse.parsePressure(`${some}full avg10=0.10 avg60=0.00 avg300=0.00 total=12\n`), {
    some: { avg10: 1.53, avg60: 0.5, avg300: 0, total: 75_200_000n },
    full: { avg10: 0.1, avg60: 0, avg300: 0, total: 12_000n },
  })
  assert.equal(parse.parsePressure(some)?.full.total, 0n)
  assert.equal(parse.parsePressure(''), undefined)
})

test('io.stat: devices without traffic are left out', () => {
  const text = '254:0 rbytes=1 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n7:0\n8:16 wbytes=2\n'
  assert.deepEqual(parse.parseIoStat(text), [
    { device: '254:0', readBytes: 1n, writeBytes: 20n, reads: 3n, writes: 4n },
  ])
})

test('blkio files: one device per block of lines, a total at the end', () => {
  const bytes = '254:0 Read 100\n254:0 Write 200\n254:0 Sync 0\n254:0 Total 300\n7:0 Read 5\nTotal 305\n'
  const operations = '254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n'
  assert.deepEqual(parse.parseBlkio(bytes, operations), [
    { device: '254:0', readBytes: 100n, writeBytes: 200n, reads: 1n, writes: 2n },
    { device: '7:0', readBytes: 5n, writeBytes: 0n, reads: 0n, writes: 0n },
  ])
  assert.deepEqual(parse.parseBlkio('Total 0\n', ''), [])
})

test('cpu.max', () => {
  assert.deepEqual(parse.parseCpuMax('max 100000\n'), { quota: -1, period: 100_000 })
  assert.deepEqual(parse.parseCpuMax('50000 100000\n'), { quota: 50_000, period: 100_000 })
  assert.equal(parse.parseCpuMax(''), undefined)
})

test('shares and weights: the ends meet, every weight survives the way there and back', () => {
  assert.deepEqual([2, 1024, 262_144, 0, 1e9].map(parse.sharesToWeight), [1, 39, 10_000, 1, 10_000])
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 10_000 }), weight => {
      const back = parse.sharesToWeight(parse.weightToShares(weight))
      assert.ok(Math.abs(back - weight) <= 1)
    }),
  )
})

test('a working set is never negative', () => {
  assert.equal(parse.workingSet(10n, 4n), 6n)
  assert.equal(parse.workingSet(4n, 10n), 0n)
})
