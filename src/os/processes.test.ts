import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { sleep } from '../base/clock.ts'
import type { ProcessRef } from '../model/pod.ts'
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
  standsStill,
  watchExit,
} from './processes.ts'
import { start } from './spawn.ts'

const TAIL = '0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2'

test('a command name with spaces and parentheses does not shift the fields', () => {
  const stat = parseStat(`42 (a) S 1 (b) c) S 7 42 41 ${TAIL}`)
  assert.deepEqual(stat, { pid: 42, state: 'S', parent: 7, session: 41, threads: 1, startTime: '987654' })
})

test('what is no stat line is nothing', () => {
  for (const text of ['', '42 (sleep', '42 (sleep) S 1 1']) assert.equal(parseStat(text), undefined)
})

type Row = readonly [pid: number, parent: number, session: number]
const statsOf = (rows: readonly Row[]) =>
  rows.map(([pid, parent, session]) => ({ pid, parent, session, state: 'S', threads: 1, startTime: '1' }))
const known = (...pids: number[]) => pids.map(pid => ({ pid, startTime: '1' }))
const pidsOf = (refs: readonly ProcessRef[]) => refs.map(ref => ref.pid)

test('descendants come parents first, whatever the order of pids', () => {
  const rows: Row[] = [
    [9, 5, 1],
    [5, 30, 1],
    [30, 1, 1],
    [31, 1, 1],
    [4, 9, 1],
  ]
  assert.deepEqual(pidsOf(descendantsIn(statsOf(rows), known(30))), [5, 9, 4])
  assert.deepEqual(descendantsIn(statsOf(rows), known(77)), [])
})

test('descendants of what is known are found also when its own parent has gone; not those of another with its pid', () => {
  const stats = statsOf([
    [40, 1, 40], // was a child of 30, which has ended
    [41, 40, 40],
    [50, 1, 50],
  ])
  assert.deepEqual(pidsOf(descendantsIn(stats, known(30, 40))), [41])
  assert.deepEqual(descendantsIn(stats, known(30, 40, 41)), [])
  assert.deepEqual(descendantsIn(stats, [{ pid: 40, startTime: '2' }]), [])
})

test('a session is part of its leader’s tree, also where the parents have gone', () => {
  const stats = statsOf([
    [30, 1, 30],
    [31, 30, 30],
    [40, 1, 30], // its parent has gone
    [41, 40, 41], // and a child of that in a session of its own
    [50, 1, 50],
  ])
  assert.deepEqual(pidsOf(descendantsIn(stats, known(30), new Set([30]))).sort(), [31, 40, 41])
  assert.deepEqual(pidsOf(descendantsIn(stats, known(30))), [31])
  assert.deepEqual(pidsOf(descendantsIn(stats, known(30), new Set([77]))), [31])
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
  assert.ok(pidsOf(descendantsOf([processRef(process.pid)!])).includes(child.pid))
  assert.equal(signalProcess(ref, 15), true)
  assert.equal(await child.exited, 128 + 15)
  assert.equal(signalProcess(ref, 15), false)
  assert.equal(processRef(child.pid), undefined)
})

test('a program whose first thread has ended runs until its last one has', async () => {
  const exit = process.arch === 'x64' ? 60 : 93 // of the calling thread alone; Node has more of them
  const script = `require('koffi').load('libc.so.6').func('long syscall(long, long)')(${exit}, 0)`
  const child = start(process.execPath, { args: ['-e', script], env: {}, fds: ['null', 'null', 'null'] })
  const ref = processRef(child.pid)!
  const stateOf = () => parseStat(readFileSync(`/proc/${child.pid}/stat`, 'utf8'))?.state
  while (stateOf() !== 'Z') await sleep(10)
  assert.equal(isAlive(ref), true)
  assert.equal(standsStill(ref), false)
  assert.equal(signalProcess(ref, 9), true)
  assert.equal(await child.exited, 128 + 9)
  assert.equal(isAlive(ref), false)
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
