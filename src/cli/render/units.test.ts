import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytes, cut, duration, instant, printable } from './units.ts'

test('sizes have three digits', () => {
  const sizes = { 0: '0 B', 999: '999 B', 1000: '1.0 KiB', 5000000: '4.8 MiB', 300000000: '286 MiB' }
  for (const [count, text] of Object.entries(sizes)) assert.equal(bytes(Number(count)), text)
  assert.equal(bytes(2 ** 55), '32768 TiB')
})

test('durations take the unit that reads best', () => {
  const durations: ReadonlyArray<[bigint, string]> = [
    [0n, '0 µs'],
    [412_000n, '412 µs'],
    [3_140_000n, '3.1 ms'],
    [314_000_000n, '314 ms'],
    [3_140_000_000n, '3.1 s'],
    [90_000_000_000n, '1 min 30 s'],
    [7_260_000_000_000n, '2 h 1 min'],
    [187_200_000_000_000n, '2 d 4 h'],
  ]
  for (const [ns, text] of durations) assert.equal(duration(ns), text)
})

test('an instant is UTC', () => {
  assert.equal(instant(1_767_323_045_678_999_999n), '2026-01-02 03:04:05.678')
})

test('no text of elsewhere steers the terminal or breaks a line', () => {
  assert.equal(printable('a\x1b[2Jb\nc\u009bd\u202ee'), 'a [2Jb c d e')
})

test('what is too long ends in an ellipsis', () => {
  assert.equal(cut('abcdef', 6), 'abcdef')
  assert.equal(cut('abcdefg', 6), 'abcde…')
  assert.equal(cut('abc', 0), '')
})
