import assert from 'node:assert/strict'
import { closeSync, openSync, readdirSync } from 'node:fs'
import type { Duplex, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { type Effect, setEffectHook } from '../base/effects.ts'
import { isCode } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { checkExitNotices } from './pidfd.ts'
import { descendantsOf, processRef, watchExit } from './processes.ts'
import { run, start } from './spawn.ts'

const SH = '/bin/sh'
const env = { PATH: '/usr/bin:/bin' }

function sh(script: string, options: Partial<Parameters<typeof run>[1]> = {}) {
  return run(SH, { args: ['-c', script], env, timeoutMs: 0, ...options })
}

test('exits are announced by the kernel on this machine', async () => {
  assert.equal(await checkExitNotices(), true)
})

test('output, exit code, arguments and environment arrive as they are', async () => {
  const args = ['-c', 'printf "%s|" "$@"; printf %s "$A" >&2; exit 7', 'sh', 'a b', '', '$x', 'é']
  const result = await run(SH, { args, env: { A: 'ü=1' }, timeoutMs: 0 })
  assert.deepEqual(
    [result.code, result.stdout.toString(), result.stderr.toString()],
    [7, 'a b||$x|é|', 'ü=1'],
  )
})

test('who a child is, is known also of one that ends at once', async () => {
  for (let tries = 0; tries < 200; tries++) {
    const { pid, ref, exited } = start('/bin/true', { args: [], env, fds: [] })
    assert.equal(ref.pid, pid)
    assert.match(ref.startTime, /^\d+$/)
    assert.equal(await exited, 0)
  }
})

test('stdin is given, and need not be read', async () => {
  const data = Buffer.alloc(300_000, 'x')
  const read = await sh('wc -c', { stdin: data })
  assert.equal(read.stdout.toString().trim(), '300000')
  assert.equal((await sh('exit 4', { stdin: data })).code, 4)
})

test('a child has its three descriptors only, default signals, and its own process group', async () => {
  const leaky = openSync('/dev/null', 'r')
  const { stdout } = await sh(
    'ls /proc/self/fd; grep -E "Sig(Blk|Ign)" /proc/self/status; ps -o pgid= $$; echo $$',
  )
  closeSync(leaky)
  const words = stdout.toString().split(/\s+/).filter(Boolean)
  const none = '0000000000000000'
  // 3 is the directory that ls reads.
  assert.deepEqual(words.slice(0, 8), ['0', '1', '2', '3', 'SigBlk:', none, 'SigIgn:', none])
  assert.equal(words[8], words[9])
})

test('the working directory is the one asked for', async () => {
  assert.equal((await sh('pwd', { cwd: '/usr/bin' })).stdout.toString(), '/usr/bin\n')
})

test('output beyond the limit is read and dropped', async () => {
  const result = await sh('head -c 3000000 /dev/zero; echo end >&2', { maxOutput: 1000 })
  assert.deepEqual([result.code, result.stdout.length, result.stderr.toString()], [0, 1000, 'end\n'])
})

test('death by a signal is 128 and its number', async () => {
  assert.equal((await sh('kill -9 $$')).code, 137)
})

test('at the time limit the whole group is killed', async () => {
  const alive: ProcessRef[] = []
  const sync = ({ name, subject }: Effect) => {
    if (name === 'kill-group') alive.push(...descendantsOf([processRef(Number(subject))!]))
  }
  setEffectHook({ sync, async: () => Promise.resolve() })
  try {
    const work = sh('sleep 61 & sleep 61 & wait', { timeoutMs: 100, label: 'slow plugin' })
    await assert.rejects(work, error => {
      assert.ok(isCode(error, 'deadline'))
      return /slow plugin: killed, since it took longer than 100 ms/.test(String(error))
    })
  } finally {
    setEffectHook(undefined)
  }
  assert.equal(alive.length, 2)
  for (const ref of alive) {
    const dead = Promise.withResolvers<void>()
    watchExit(ref, dead.resolve)
    await dead.promise
  }
})

test('an abort kills the program, and an earlier one does not start it', async () => {
  const abort = new AbortController()
  const work = sh('echo ready; sleep 61', { signal: abort.signal })
  abort.abort()
  await assert.rejects(work, error => isCode(error, 'cancelled'))
  await assert.rejects(sh('exit 0', { signal: abort.signal }), error => isCode(error, 'cancelled'))
})

test('what cannot be started is named', async () => {
  const missing = run('/no/such/program', { args: [], env, timeoutMs: 0 })
  await assert.rejects(missing, /cannot start \/no\/such\/program: no such program/)
  await assert.rejects(sh('exit 0', { cwd: '/no/such/dir' }), /or the working directory \/no\/such\/dir/)
  const notExecutable = run('/etc/passwd', { args: [], env, timeoutMs: 0 })
  await assert.rejects(notExecutable, error => isCode(error, 'precondition'))
  await assert.rejects(run('sh', { args: [], env, timeoutMs: 0 }), /absolute path/)
  await assert.rejects(sh('exit 0\0'), /NUL/)
})

test('descriptors come in any order, also when their sources have low numbers', async () => {
  const child = start(SH, {
    args: ['-c', 'cat <&3 >&4; echo five >&5; echo out'],
    env,
    // 2 and 0 are sources that a plain dup2 in this order would have overwritten.
    fds: ['null', 'pipe-read', 2, 'pipe-write', 'pipe-read', 'socket', 0],
  })
  const [none, out, inherited, input, copy, socket] = child.streams
  assert.deepEqual([none, inherited], [undefined, undefined])
  ;(input as Writable).end('through')
  const texts = [out, copy, socket].map(stream => text(stream as Readable))
  assert.deepEqual(await Promise.all(texts), ['out\n', 'through', 'five\n'])
  assert.equal(await child.exited, 0)
})

test('a socket goes both ways', async () => {
  const child = start(SH, {
    args: ['-c', 'read line <&3; echo "got $line" >&3'],
    env,
    fds: ['null', 'null', 2, 'socket'],
  })
  const socket = child.streams[3] as Duplex
  socket.write('this\n')
  assert.equal(await text(socket), 'got this\n')
  await child.exited
})

test('a session of its own', async () => {
  const child = start('/bin/sleep', { args: ['60'], env, fds: ['null', 'null', 'null'], newSession: true })
  assert.notEqual(processRef(child.pid), undefined)
  child.kill('SIGTERM')
  assert.equal(await child.exited, 143)
  child.kill('SIGTERM')
})

test('nothing is left open, also after failures', async () => {
  const before = readdirSync('/proc/self/fd').length
  for (let i = 0; i < 20; i++) await sh('echo x; echo y >&2', { stdin: 'z' })
  for (let i = 0; i < 20; i++) await assert.rejects(run('/no/such/program', { args: [], env, timeoutMs: 0 }))
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(readdirSync('/proc/self/fd').length, before)
})
