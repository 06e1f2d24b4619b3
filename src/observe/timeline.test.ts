import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog } from './log.ts'
import { Metrics } from './metrics.ts'
import { Timeline, type TimelineOptions } from './timeline.ts'

function setUp(options: Partial<TimelineOptions> = {}) {
  const lines: Array<Record<string, unknown>> = []
  const log = createLog({ format: 'json', level: 'debug', write: line => lines.push(JSON.parse(line)) })
  return { timeline: new Timeline({ log, maxEntries: 1000, slowMs: 0, ...options }), lines }
}

const run = { podId: 'p1', operation: 'RunPodSandbox' }

test('a step is returned, kept and logged', async () => {
  const { timeline, lines } = setUp()
  assert.equal(await timeline.step(run, 'cni-add', async () => 7, { detail: 'bridge' }), 7)
  const [entry] = timeline.of('p1')
  assert.ok(entry !== undefined && entry.durationNs >= 0n && entry.startNs > 10n ** 18n)
  const { startNs: _, durationNs: __, ...rest } = entry
  assert.deepEqual(rest, { ...run, step: 'cni-add', detail: 'bridge' })
  assert.equal(lines[0]?.level, 'debug')
  assert.equal(lines[0]?.step, 'cni-add')
})

test('a failing step throws its own error and keeps the message', async () => {
  const { timeline } = setUp()
  const error = new Error('no address left')
  await assert.rejects(
    timeline.step(run, 'cni-add', () => Promise.reject(error)),
    error,
  )
  assert.equal(timeline.of('p1')[0]?.error, 'no address left')
  assert.equal(timeline.current('p1'), undefined)
})

test('work that is not asynchronous is a step too', async () => {
  const { timeline } = setUp()
  await timeline.step(run, 'mount', () => undefined)
  assert.equal(timeline.of('p1')[0]?.step, 'mount')
})

test('the innermost running step is told, with its age', async () => {
  const { timeline } = setUp()
  const { promise, resolve } = Promise.withResolvers<void>()
  const outer = timeline.step(run, 'network', () =>
    timeline.step({ ...run, containerId: 'c1' }, 'cni-add', () => promise),
  )
  assert.equal(timeline.current('p1')?.step, 'cni-add')
  assert.equal(timeline.current('p1', 'c2'), undefined)
  assert.match(timeline.describe('p1'), /^RunPodSandbox is in step cni-add for \d+\.\d s$/)
  resolve()
  await outer
  assert.equal(timeline.describe('p1'), '')
  // The outer step began first.
  assert.deepEqual(
    timeline.of('p1').map(entry => entry.step),
    ['network', 'cni-add'],
  )
})

test('one busy operation does not push out the others', async () => {
  const { timeline } = setUp()
  await timeline.step(run, 'cni-add', () => 0)
  for (let i = 0; i < 500; i++) await timeline.step({ podId: 'p1', operation: 'ExecSync' }, 'exec', () => 0)
  const entries = timeline.of('p1')
  assert.equal(entries[0]?.step, 'cni-add')
  assert.equal(entries.length, 65)
})

test('the pods that were touched longest ago are forgotten first', async () => {
  const { timeline } = setUp({ maxEntries: 3 })
  for (const podId of ['a', 'b', 'a', 'c']) await timeline.step({ podId, operation: 'x' }, 's', () => 0)
  assert.deepEqual(
    ['a', 'b', 'c'].map(podId => timeline.of(podId).length),
    [2, 0, 1],
  )
})

test('what belongs to no pod is logged and not kept', async () => {
  const { timeline, lines } = setUp()
  await timeline.step({ podId: '', operation: 'PullImage' }, 'resolve', () => 0)
  assert.deepEqual(timeline.of(''), [])
  assert.equal(lines.length, 1)
})

test('a slow step is a warning, unless it is one that waits', async () => {
  const { timeline, lines } = setUp({ slowMs: 1 })
  const work = () => {
    const end = performance.now() + 2
    while (performance.now() < end);
  }
  await timeline.step(run, 'cni-add', work)
  await timeline.step(run, 'grace', work, { waits: true })
  timeline.slowMs = 0
  await timeline.step(run, 'again', work)
  assert.deepEqual(
    lines.map(line => line.level),
    ['warn', 'debug', 'debug'],
  )
})

test('every step is counted', async () => {
  const observer = new Metrics()
  const { timeline } = setUp({ observer })
  await timeline.step(run, 'cni-add', () => 0)
  assert.match(
    await observer.text(),
    /step_duration_seconds_count\{operation="RunPodSandbox",step="cni-add"\} 1/,
  )
})
