import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Effect } from '../base/effects.ts'
import { FaultHook, parseFaultPlan } from './fault-plan.ts'

const mount: Effect = { layer: 'os', name: 'mount', subject: '/x' }
const commit: Effect = { layer: 'state', name: 'commit', subject: 'pod' }

function hookOf(plan: string, file?: 'replaceable') {
  const seen: string[] = []
  let content = ''
  const hook = new FaultHook(parseFaultPlan(`${plan},trace=t${file === undefined ? '' : ',plan=p'}`), {
    kill: () => seen.push('kill'),
    block: ms => seen.push(`block ${ms}`),
    trace: (_, line) => seen.push(line),
    version: () => content,
    read: () => content,
  })
  return {
    hook,
    replace: (next: string) => {
      content = next
    },
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

test('a star in a subject stands for any text', () => {
  const subjects = (plan: string, ...paths: string[]) =>
    failures(
      plan,
      paths.map(subject => ({ ...mount, subject })),
    )
  assert.deepEqual(subjects('fail@os.mount=/run/*/shm#2', '/run/a/shm', '/run/b/ns', '/run/b/c/shm'), [
    false,
    false,
    true,
  ])
  assert.deepEqual(subjects('fail@os.mount=/x.y', '/xzy', '/x.y/'), [false, false])
})

test('after a point everything fails, whatever it is', () => {
  assert.deepEqual(failures('failall@os.mount#2', [mount, commit, mount, commit, mount]), [
    false,
    false,
    true,
    true,
    true,
  ])
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
  assert.deepEqual(lines(), ['1 state.commit sync pod\n', '2 os.mount sync /x\n', '2 struck fail\n'])
})

test('a file that is replaced is the plan from then on, and counting begins anew', () => {
  const { hook, replace } = hookOf('fail@os.mount', 'replaceable')
  assert.throws(() => hook.sync(mount))
  replace('fail@os.mount#2')
  hook.sync(mount)
  assert.throws(() => hook.sync(mount))
  replace('')
  hook.sync(mount)
})

test('what hangs goes on when the plan is replaced', async () => {
  const { hook, replace } = hookOf('hang@state.commit', 'replaceable')
  const hung = hook.async(commit)
  replace(' ')
  await hung
})

test('the trace file grows line by line', () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-faults-'))
  try {
    const file = join(directory, 'trace')
    const hook = new FaultHook(parseFaultPlan(`trace=${file}`))
    hook.sync(mount)
    assert.equal(readFileSync(file, 'utf8'), '1 os.mount sync /x\n')
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
