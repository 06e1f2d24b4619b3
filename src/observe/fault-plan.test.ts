import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Effect } from '../base/effects.ts'
import { FaultHook, parseFaultPlan } from './fault-plan.ts'

const mount: Effect = { layer: 'os', name: 'mount', subject: '/x' }
const commit: Effect = { layer: 'state', name: 'commit', subject: 'pod' }

function hookOf(plan: string) {
  const seen: string[] = []
  const hook = new FaultHook(parseFaultPlan(plan), {
    kill: () => seen.push('kill'),
    block: ms => seen.push(`block ${ms}`),
    trace: line => seen.push(line),
  })
  return {
    hook,
    actions: () => seen.filter(entry => !entry.endsWith('\n')),
    lines: () => seen.filter(entry => entry.endsWith('\n')),
  }
}

/** Which of the effects fail. */
function failures(plan: string, effects: readonly Effect[]): boolean[] {
  const { hook } = hookOf(plan)
  return effects.map(effect => {
    try {
      hook.sync(effect)
      return false
    } catch {
      return true
    }
  })
}

test('an effect fails by its number', () => {
  assert.deepEqual(failures('fail@2', [mount, mount, mount]), [false, true, false])
})

test('an effect fails by its name, every time or the n-th time', () => {
  assert.deepEqual(failures('fail@os.mount', [mount, commit, mount]), [true, false, true])
  assert.deepEqual(failures('fail@os.mount#2', [mount, commit, mount, mount]), [false, false, true, false])
  assert.deepEqual(failures('fail@os.*#2', [commit, mount, mount]), [false, false, true])
})

test('an effect fails by its subject, however many of its kind come before', () => {
  const other: Effect = { layer: 'state', name: 'commit', subject: 'layers committed' }
  assert.deepEqual(failures('fail@state.commit=pod', [other, other, commit]), [false, false, true])
  assert.deepEqual(failures('fail@state.commit=layers committed#2', [other, commit, other, other]), [
    false,
    false,
    true,
    false,
  ])
  assert.deepEqual(failures('fail@os.mount=/x:ENOSPC', [mount]), [true])
})

test('everything fails from a point on', () => {
  assert.deepEqual(failures('failfrom@2', [mount, commit, mount]), [false, true, true])
  assert.deepEqual(failures('failfrom@os.mount#2', [mount, mount, commit, mount]), [false, true, false, true])
})

test('faults come in pairs', () => {
  assert.deepEqual(failures('fail@1, fail@3', [mount, mount, mount]), [true, false, true])
})

test('the error says which effect, and has the errno that was asked for', () => {
  const { hook } = hookOf('fail@1:ENOSPC')
  assert.throws(() => hook.sync(mount), { code: 'ENOSPC', message: /effect 1: os\.mount \/x/ })
})

test('a delay blocks a synchronous effect', () => {
  const { hook, actions } = hookOf('delay@os.mount:250,kill@2')
  hook.sync(mount)
  hook.sync(commit)
  assert.deepEqual(actions(), ['block 250', 'kill'])
})

test('an asynchronous effect fails by rejection', async () => {
  await assert.rejects(hookOf('fail@state.commit').hook.async(commit), /injected fault/)
})

test('an effect that hangs never begins', async () => {
  const hung = hookOf('hang@1').hook.async(commit)
  const turn = new Promise<string>(resolve => setImmediate(resolve, 'still waiting'))
  assert.equal(await Promise.race([hung, turn]), 'still waiting')
})

test('every effect is traced before it is struck', () => {
  const { hook, lines } = hookOf('fail@2')
  hook.sync(commit)
  assert.throws(() => hook.sync(mount))
  assert.deepEqual(lines(), ['1 state.commit pod\n', '2 os.mount /x\n'])
})

test('the trace file grows line by line', () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-faults-'))
  try {
    const file = join(directory, 'trace')
    const hook = new FaultHook(parseFaultPlan(`trace=${file}`))
    hook.sync(mount)
    assert.equal(readFileSync(file, 'utf8'), '1 os.mount /x\n')
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('a rule that means nothing is refused', () => {
  for (const plan of [
    'kil@1',
    'fail@0',
    'fail@3#2',
    'delay@1',
    'delay@1:x',
    'kill@1:EIO',
    'fail@1:5',
    'fail@mount',
    'x',
  ]) {
    assert.throws(() => parseFaultPlan(plan), { name: 'BerthError', message: /^BERTH_FAULTS: / }, plan)
  }
})
