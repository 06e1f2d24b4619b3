import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import {
  descendantsIn,
  descendantsOf,
  isAlive,
  openDescriptors,
  parseStat,
  processesWithVariable,
  processRef,
  signalProcess,
  softLimitOfFiles,
  watchExit,
} from './processes.ts'
import { start } from './spawn.ts'

const TAIL = '0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2'

test('a command name with spaces and parentheses does not shift the fields', () => {
  const stat = parseStat(`42 (a) S 1 (b) c) S 7 42 41 ${TAIL}`)
  assert.deepEqual(stat, { pid: 42, state: 'S', parent: 7, session: 41, startTime: '987654' })
})

test('what is no stat line is nothing', () => {
  for (const text of ['', '42 (sleep', '42 (sleep) S 1 1']) assert.equal(parseStat(text), undefined)
})

test('descendants come parents first, whatever the order of pids', () => {
  const stats = [
    [9, 5],
    [5, 30],
    [30, 1],
    [31, 1],
    [4, 9],
  ].map(([pid, parent]) => ({ pid: pid!, parent: parent!, state: 'S', session: 1, startTime: '1' }))
  assert.deepEqual(descendantsIn(stats, 30), [5, 9, 4])
  assert.deepEqual(descendantsIn(stats, 77), [])
})

test('a session is part of its leader’s tree, also where the parents have gone', () => {
  const stats = [
    [30, 1, 30],
    [31, 30, 30],
    [40, 1, 30], // its parent has gone
    [41, 40, 41], // and a child of that in a session of its own
    [50, 1, 50],
  ].map(([pid, parent, session]) => ({
    pid: pid!,
    parent: parent!,
    session: session!,
    state: 'S',
    startTime: '1',
  }))
  assert.deepEqual(descendantsIn(stats, 30, 30).sort(), [31, 40, 41])
  assert.deepEqual(descendantsIn(stats, 30), [31])
  assert.deepEqual(descendantsIn(stats, 30, 77), [31])
})

test('descriptors and sockets of processes that are there, and the limit of files', async () => {
  const before = await openDescriptors([process.pid, 2 ** 22 + 1])
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const after = await openDescriptors([process.pid])
  server.close()
  assert.ok(after.files > before.files && after.sockets > before.sockets)
  assert.ok((softLimitOfFiles(process.pid) ?? 0n) > 0n)
  assert.equal(softLimitOfFiles(2 ** 22 + 1), undefined)
})

function sleeper() {
  return start('/bin/sleep', { args: ['60'], env: {}, fds: ['null', 'null', 'null'], newSession: true })
}

test('a process is the same only with the same start time', async () => {
  const child = sleeper()
  const ref = processRef(child.pid)!
  assert.equal(isAlive(ref), true)
  const another = { ...ref, startTime: '1' }
  assert.equal(isAlive(another), false)
  assert.equal(signalProcess(another, 9), false)
  assert.equal(isAlive(ref), true)
  assert.ok(descendantsOf(process.pid).includes(child.pid))
  assert.equal(signalProcess(ref, 15), true)
  assert.equal(await child.exited, 128 + 15)
  assert.equal(signalProcess(ref, 15), false)
  assert.equal(processRef(child.pid), undefined)
})

test('an exit is announced for children of libuv, for zombies, and for those long gone', async () => {
  const foreign = spawn('/bin/sh', ['-c', '/bin/true & echo $!; exec sleep 60'], { stdio: 'pipe' })
  const [line] = await once(foreign.stdout!, 'data')
  const zombie = processRef(Number(String(line)))
  const ref = processRef(foreign.pid!)!
  const exits: string[] = []
  const both = Promise.withResolvers<void>()
  const note = (name: string) => () => {
    exits.push(name)
    if (exits.length === 2) both.resolve()
  }
  watchExit(zombie ?? { pid: Number(String(line)), startTime: '1' }, note('zombie'))
  watchExit(ref, note('child'))
  foreign.kill('SIGKILL')
  await both.promise
  assert.deepEqual(exits.toSorted(), ['child', 'zombie'])
  const gone = Promise.withResolvers<void>()
  watchExit(ref, gone.resolve)
  await gone.promise
})

test('a watch that was disposed never calls', async () => {
  const child = sleeper()
  let calls = 0
  const watch = watchExit(processRef(child.pid)!, () => calls++)
  watch[Symbol.dispose]()
  child.kill('SIGKILL')
  await child.exited
  const gone = watchExit({ pid: child.pid, startTime: '1' }, () => calls++)
  gone[Symbol.dispose]()
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(calls, 0)
})

test('processes are found by a variable of their environment, its whole name and value', async () => {
  const value = `berth-${process.pid}`
  const env = { FIRST: 'x', MARK: value, LAST: value }
  const child = spawn('/bin/sleep', ['1000'], { env })
  try {
    await once(child, 'spawn')
    const pidsWith = (name: string, text: string) => processesWithVariable(name, text).map(({ pid }) => pid)
    for (const name of ['MARK', 'LAST']) assert.deepEqual(pidsWith(name, value), [child.pid])
    assert.deepEqual([...pidsWith('ARK', value), ...pidsWith('MARK', value.slice(0, -1))], [])
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  assert.deepEqual(processesWithVariable('MARK', value), [])
})
