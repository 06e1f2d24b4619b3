import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Step, waterfall } from './waterfall.ts'

const START = 1_767_323_045_000_000_000n

function step(name: string, atMs: number, ms: number, more: Partial<Step> = {}): Step {
  return {
    operation: 'RunPodSandbox',
    containerId: '',
    step: name,
    startNs: START + BigInt(atMs * 1e6),
    durationNs: BigInt(ms * 1e6),
    detail: '',
    error: '',
    ...more,
  }
}

const pod = [
  step('namespaces', 0, 1),
  step('cni-add', 10, 80, { detail: 'bridge podnet' }),
  step('commit', 90, 10),
]

test('bars show when each step began and how long it took', () => {
  assert.equal(
    waterfall(pod, 60),
    [
      'RunPodSandbox  2026-01-02 03:04:05.000  100 ms',
      '  namespaces █                                        1.0 ms',
      '  cni-add        ███████████████████████████████     80.0 ms',
      '  commit                                        ████ 10.0 ms',
      '',
    ].join('\n'),
  )
})

test('no line is wider than the terminal, whatever its width', () => {
  const steps = [...pod, step('a-very-long-name-of-a-step-indeed', 100, 1, { detail: 'd'.repeat(200) })]
  for (let width = 50; width < 200; width++) {
    for (const line of waterfall(steps, width).split('\n'))
      assert.ok(line.length <= width, `${width}: ${line}`)
  }
})

test('details stand beside the bar where there is room', () => {
  assert.match(waterfall(pod, 120), /80\.0 ms {2}bridge podnet\n/)
  assert.doesNotMatch(waterfall(pod, 60), /podnet/)
})

test('a failure is told in full', () => {
  const error = `plugin bridge: ${'x'.repeat(100)}`
  assert.match(
    waterfall([step('cni-add', 0, 5, { error })], 60),
    new RegExp(`▒.*5\\.0 ms\\n {4}failed: ${error}\n`),
  )
})

test('each operation on each container has its own scale, also when they overlap', () => {
  const text = waterfall(
    [
      step('mount', 0, 1, { operation: 'CreateContainer', containerId: 'a'.repeat(64) }),
      step('mount', 1, 1, { operation: 'CreateContainer', containerId: 'b'.repeat(64) }),
      step('create', 2, 30, { operation: 'CreateContainer', containerId: 'a'.repeat(64) }),
    ],
    80,
  )
  assert.deepEqual(text.match(/^\S+ \S+|^ {2}\S+/gm), [
    'CreateContainer aaaaaaaaaaaa',
    '  mount',
    '  create',
    'CreateContainer bbbbbbbbbbbb',
    '  mount',
  ])
})

test('the same operation later is another piece of work', () => {
  const text = waterfall([step('exec', 0, 5), step('exec', 500, 5), step('exec', 10_000, 5)], 80)
  assert.equal(text.match(/^RunPodSandbox/gm)?.length, 2)
})

test('steps that took no time still have a bar, and texts cannot steer the terminal', () => {
  assert.match(waterfall([step('x\x1b[2J', 0, 0)], 80), /^ {2}x \[2J █ +0 µs\n/m)
  assert.equal(waterfall([], 80), '')
})
