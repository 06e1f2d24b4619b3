import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type LayerProgress,
  ProgressBlock,
  progressChanges,
  progressLines,
  progressSummary,
  RateMeter,
} from './pull-progress.ts'

function layer(
  state: LayerProgress['state'],
  received: number,
  total = 1_000_000,
  unpacked = received,
  waitsFor = '',
): LayerProgress {
  return { digest: `sha256:${'ab'.repeat(32)}`, state, bytes: received, unpacked, total, waitsFor }
}

test('one line for each layer, with a bar', () => {
  assert.deepEqual(
    progressLines(
      [
        layer('waiting', 0),
        layer('downloading', 500_000),
        layer('downloading', 500_000, 1_000_000, 250_000, 'the network'),
        layer('committing', 1_000_000),
        layer('done', 1_000_000),
        layer('exists', 0),
      ],
      100,
    ),
    [
      'abababababab  waiting      [>                                       ]  0 B of 977 KiB',
      'abababababab  downloading  [====================>                   ]  488 KiB of 977 KiB',
      'abababababab  downloading  [==========---------->                   ]  488 KiB of 977 KiB, waits fo…',
      'abababababab  committing   [========================================]  977 KiB of 977 KiB',
      'abababababab  done         [========================================]  977 KiB',
      'abababababab  on the node  [========================================]  977 KiB',
    ],
  )
})

test('no line is wider than the terminal', () => {
  const layers = [layer('downloading', 123_456_789_000, 999_999_999_999), layer('downloading', 5, 0)]
  for (let width = 1; width < 150; width++) {
    for (const line of progressLines(layers, width)) assert.ok(line.length <= width, `${width}: ${line}`)
  }
})

test('a log gets the changes only', () => {
  const first = [layer('downloading', 1), layer('waiting', 0)]
  const second = [layer('downloading', 500), layer('exists', 0)]
  assert.deepEqual(progressChanges([], first), ['abababababab downloading (977 KiB)'])
  assert.deepEqual(progressChanges(first, second), ['abababababab on the node (977 KiB)'])
  assert.deepEqual(progressChanges(second, second), [])
})

test('a terminal is redrawn in place, and never more than it holds', () => {
  const written: string[] = []
  const block = new ProgressBlock(text => written.push(text))
  block.draw(['a', 'b', 'c'], 2)
  block.draw(['d', 'e', 'f'], 2)
  assert.deepEqual(written, ['\x1b[2Kb\n\x1b[2Kc\n', '\x1b[2A\x1b[2Ke\n\x1b[2Kf\n'])
})

test('all layers in one line', () => {
  const network = layer('downloading', 500_000, 1_000_000, 500_000, 'the network')
  const turn = layer('waiting', 0, 1_000_000, 0, 'its turn')
  assert.equal(
    progressSummary([layer('exists', 1_000_000), network, turn], 2048),
    '1 of 3 layers, 488 KiB of 1.9 MiB, 2.0 KiB/s, waits for the network',
  )
  assert.equal(
    progressSummary([network, layer('unpacking', 1_000_000)], 2048),
    '0 of 2 layers, 1.4 MiB of 1.9 MiB, 2.0 KiB/s',
  )
  assert.equal(progressSummary([layer('done', 5)], 1), '1 of 1 layers, 977 KiB of 977 KiB')
})

test('the rate is that of the last seconds', () => {
  const meter = new RateMeter(1000)
  assert.equal(meter.perSecond, 0)
  meter.add(0, 0)
  assert.equal(meter.perSecond, 0)
  for (let second = 1; second <= 10; second++) meter.add(second * 100, second * 1000)
  assert.equal(meter.perSecond, 100)
  meter.add(1000, 11_000)
  meter.add(1000, 12_000)
  meter.add(1000, 13_000)
  assert.equal(meter.perSecond, 0)
})
