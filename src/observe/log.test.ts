import assert from 'node:assert/strict'
import { test } from 'node:test'
import { precondition } from '../base/errors.ts'
import { createLog } from './log.ts'

function capture(format: 'text' | 'json', level: 'debug' | 'info' = 'info') {
  const lines: string[] = []
  return { log: createLog({ format, level, write: line => lines.push(line) }), lines }
}

function fieldsOf(line: string | undefined): Record<string, unknown> {
  return JSON.parse(line ?? 'null') as Record<string, unknown>
}

test('a JSON line has level, time, message and fields', () => {
  const { log, lines } = capture('json')
  log.child({ podId: 'p1' }).info({ ms: 1.5, at: 10n ** 20n }, 'pod is ready')
  const { time, ...rest } = fieldsOf(lines[0])
  assert.match(String(time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
  assert.deepEqual(rest, {
    level: 'info',
    podId: 'p1',
    ms: 1.5,
    at: '100000000000000000000',
    msg: 'pod is ready',
  })
})

test('a text line reads from left to right', () => {
  const { log, lines } = capture('text')
  log.warn({ podId: 'p1', detail: 'two words', list: ['a'] }, 'a step was slow')
  assert.match(lines[0]!, /^\S+Z WARN {2}a step was slow podId=p1 detail="two words" list=\["a"\]\n$/)
})

test('a change of the level reaches logs that were derived before', () => {
  const { log, lines } = capture('json')
  const child = log.child({ podId: 'p1' })
  child.debug({}, 'hidden')
  log.level = 'debug'
  child.debug({}, 'shown')
  assert.deepEqual(
    lines.map(line => fieldsOf(line).msg),
    ['shown'],
  )
})

test('an expected error is its message, an unexpected one also its stack', () => {
  const { log, lines } = capture('json')
  log.error({ error: precondition('the pod is not ready') }, 'x')
  log.error({ error: new TypeError('boom') }, 'y')
  assert.equal(fieldsOf(lines[0]).error, 'the pod is not ready')
  assert.equal(fieldsOf(lines[0]).stack, undefined)
  assert.match(String(fieldsOf(lines[1]).stack), /^TypeError: boom\n/)
})

test('passwords in URLs and headers do not reach the log', () => {
  for (const format of ['json', 'text'] as const) {
    const { log, lines } = capture(format)
    log.info(
      { url: 'https://joe:hunter2@registry.example/v2/', header: 'Bearer abcdefgh.ijkl' },
      'via http://u:hunter2@p',
    )
    assert.doesNotMatch(lines[0]!, /hunter2|abcdefgh/)
    assert.match(lines[0]!, /https:\/\/\[credentials\]@registry\.example/)
  }
})

test('an image by digest is no password', () => {
  const { log, lines } = capture('json')
  log.info({}, 'docker://busybox:1@sha256:00')
  assert.equal(fieldsOf(lines[0]).msg, 'docker://busybox:1@sha256:00')
})

test('no output of a container can steer the terminal', () => {
  for (const format of ['json', 'text'] as const) {
    const { log, lines } = capture(format)
    log.info({ error: 'a\x1b[2Jb\u009bc\u202ed\ne' }, 'f\x07\ng')
    assert.match(lines[0]!, /^[\x20-\x7e]+\n$/)
  }
})

test('long texts are cut', () => {
  const { log, lines } = capture('json')
  log.info({ error: 'x'.repeat(100_000) }, 'y')
  assert.ok(lines[0]!.length < 9_000)
  assert.match(lines[0]!, /100000 characters/)
})
