import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { runProgram, runTests } from './files.ts'
import { leftovers, takeSnapshot } from './leftovers.ts'

const scratch = mkdtempSync(join(tmpdir(), 'driver-test-'))
after(() => rmSync(scratch, { recursive: true }))

function testFile(name: string, body: string): string {
  const path = join(scratch, `${name}.test.mjs`)
  writeFileSync(
    path,
    `import { test, describe } from 'node:test'\nimport assert from 'node:assert'\n${body}\n`,
  )
  return path
}

/** Empty once the process has ended, also before its parent knows. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

async function outcomeOf(name: string, body: string, limitSeconds = 30) {
  return runTests({ name, files: [testFile(name, body)], scratch, limitSeconds })
}

test('counts what passed, failed and was skipped', async () => {
  const outcome = await outcomeOf(
    'mixed',
    `test('a', () => {})
describe('group', () => { test('b', () => {}); test('c', () => assert.equal(1, 2)) })
test('d', { skip: 'no kernel for it' }, () => {})`,
  )
  assert.equal(outcome.passed, 2)
  assert.equal(outcome.failed, 1)
  assert.deepEqual(outcome.skipped, [{ test: 'd', reason: 'no kernel for it' }])
  assert.match(outcome.output, /1 == 2/)
})

test('what a passing test wants to be read is kept', async () => {
  const outcome = await outcomeOf('notes', `test('a', t => { t.diagnostic('97 of 117') })`)
  assert.deepEqual(outcome.notes, ['97 of 117'])
})

test('a file that crashes is a failure, even after tests that passed', async () => {
  const outcome = await outcomeOf(
    'crash',
    `test('a', () => {})\nprocess.on('exit', () => { process.exitCode = 3 })`,
  )
  assert.equal(outcome.passed, 1)
  assert.equal(outcome.failed, 1)
})

test('a file that cannot be loaded, or has no test, is a failure', async () => {
  const broken = await outcomeOf('broken', `import './is-not-there.mjs'`)
  assert.equal(broken.failed, 1)
  assert.match(broken.output, /is-not-there/)
  const empty = await outcomeOf('empty', '')
  assert.equal(empty.failed, 1)
  assert.match(empty.output, /has no tests/)
})

test('a file that hangs is killed with its children, and its output kept', async () => {
  const body = `import { spawn } from 'node:child_process'
const child = spawn('sleep', ['1000'])
console.log('child', child.pid)
test('hangs', () => new Promise(() => setInterval(() => {}, 1000)))`
  const outcome = await outcomeOf('hang', body, 1)
  assert.equal(outcome.failed, 1)
  assert.match(outcome.output, /still running after 1 s/)
  const pid = Number(/child (\d+)/.exec(outcome.output)?.[1])
  while (commandOf(pid) !== '') await new Promise(resolve => setTimeout(resolve, 10))
})

test('a daemon that keeps the output open does not hold the run up', async () => {
  const body = `import { spawn } from 'node:child_process'
const child = spawn('sleep', ['1000'], { detached: true, stdio: ['ignore', 'inherit', 'inherit'] })
child.unref()
console.log('daemon', child.pid)
test('a', () => {})`
  const outcome = await outcomeOf('daemon', body)
  const pid = Number(/daemon (\d+)/.exec(outcome.output)?.[1])
  process.kill(pid, 'SIGKILL')
  assert.equal(outcome.passed, 1)
  assert.equal(outcome.failed, 0)
})

test('several files in one process are counted together', async () => {
  const files = [
    testFile('one', `test('a', () => {})`),
    testFile('two', `test('b', () => assert.fail('why'))`),
  ]
  const outcome = await runTests({ name: 'both', files, scratch, limitSeconds: 30 })
  assert.deepEqual([outcome.passed, outcome.failed], [1, 1])
  assert.match(outcome.output, /two\.test\.mjs[\s\S]*why/)
})

test('a program counts by its exit code', async () => {
  const good = await runProgram('good', ['-e', ''], 30)
  assert.deepEqual([good.passed, good.failed], [1, 0])
  const bad = await runProgram('bad', ['-e', 'console.error("why"); process.exit(2)'], 30)
  assert.deepEqual([bad.passed, bad.failed, bad.output], [0, 1, 'why\n'])
})

test('what is left behind is named, and what goes away in time is not', async () => {
  const before = takeSnapshot()
  const directory = join('/tmp', `berth-left-${process.pid}`)
  mkdirSync(directory)
  const program = join(scratch, 'conmon-left')
  copyFileSync('/bin/sleep', program)
  const child = spawn(program, ['1000'])
  try {
    const named = (await leftovers(before, 0)).filter(line => line.includes('left'))
    assert.deepEqual(named, [`directory ${directory}`, `process ${child.pid}: ${program} 1000`])
  } finally {
    child.kill('SIGKILL')
    rmSync(directory, { recursive: true })
  }
  const gone = (await leftovers(before, 2000)).filter(
    line => line.includes(directory) || line.includes(program),
  )
  assert.deepEqual(gone, [])
})
