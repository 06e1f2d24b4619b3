import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type LayerProgress, ProgressBlock, progressChanges, progressLines } from './pull-progress.ts'

function layer(state: LayerProgress['state'], received: number, total = 1_000_000): LayerProgress {
  return { digest: `sha256:${'ab'.repeat(32)}`, state, bytes: received, total }
}

test('one line for each layer, with a bar', () => {
  assert.deepEqual(
    progressLines(
      [layer('waiting', 0), layer('downloading', 500_000), layer('done', 1_000_000), layer('exists', 0)],
      80,
    ),
    [
      'abababababab  waiting      [>                            ]  0 B of 977 KiB',
      'abababababab  downloading  [==============>              ]  488 KiB of 977 KiB',
      'abababababab  done         [=============================]  977 KiB',
      'abababababab  on the node  [=============================]  977 KiB',
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
  assert.deepEqual(written, ['\x1b[2Ka\n\x1b[2Kb\n', '\x1b[2A\x1b[2Kd\n\x1b[2Ke\n'])
})
