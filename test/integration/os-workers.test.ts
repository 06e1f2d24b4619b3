import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { forkWorker } from '../../src/os/workers.ts'
import { ScratchMount } from '../support/scratch-mount.ts'

const scratch = new ScratchMount()

/** Worker processes of these tests, as a bundle would hold them. */
function workerFile(name: string, code: string): string {
  writeFileSync(scratch.path(`${name}.mjs`), code)
  return `file://${scratch.root}/main.mjs`
}

test('a worker process gets messages and bulk data, and tells how it ended', async t => {
  const from = workerFile(
    'echo-worker',
    `import { createReadStream } from 'node:fs'
    let bytes = 0
    const bulk = createReadStream('', { fd: 3 }).on('data', chunk => { bytes += chunk.length })
    bulk.on('end', () => process.send({ bytes, env: Object.keys(process.env), flags: process.execArgv, args: process.argv.slice(2) }))
    process.on('message', message => {
      if (message.buffer) process.send(message)
      else { console.error('x'.repeat(9000) + 'last words'); process.exit(message.code) }
    })`,
  )
  const messages: unknown[] = []
  const two = Promise.withResolvers<void>()
  const onMessage = (message: unknown) => {
    if (messages.push(message) === 2) two.resolve()
  }
  const worker = forkWorker('echo-worker', {
    from,
    args: ['an arg'],
    maxSemiSpace: 2,
    maxOldSpace: 64,
    capabilities: [],
    onMessage,
  })
  t.after(() => worker.kill())
  await worker.send({ buffer: new Uint8Array([1, 255]), big: 12n })
  for (let i = 0; i < 10; i++) worker.bulk.write(Buffer.alloc(100_000))
  worker.bulk.end()
  await two.promise
  const flags = ['--max-semi-space-size=2', '--max-old-space-size=64']
  assert.deepEqual(messages, [
    { buffer: new Uint8Array([1, 255]), big: 12n },
    {
      bytes: 1_000_000,
      env: [],
      flags,
      args: ['an arg'],
    },
  ])
  await worker.send({ code: 9 })
  const { code, stderr } = await worker.exited
  assert.equal(code, 9)
  assert.equal(stderr.length, 8192)
  assert.match(stderr, /xlast words\n$/)
  await assert.rejects(worker.send({}))
})

test('a worker process that is killed, while data is on its way', async t => {
  const from = workerFile('deaf-worker', 'setInterval(() => {}, 1000); process.send("up")')
  const up = Promise.withResolvers<unknown>()
  const worker = forkWorker('deaf-worker', {
    from,
    maxSemiSpace: 2,
    maxOldSpace: 64,
    capabilities: [],
    onMessage: up.resolve,
  })
  t.after(() => worker.kill())
  await up.promise
  worker.bulk.write(Buffer.alloc(1_000_000))
  worker.kill()
  assert.equal((await worker.exited).code, 137)
  worker.kill()
})

test('a worker process locks itself into a directory', async t => {
  const jail = scratch.directory('jail/inside')
  const calls = import.meta.resolve('../../src/os/syscalls.ts')
  const from = workerFile(
    'jail-worker',
    `import { chroot, fchdir } from ${JSON.stringify(calls)}
    import { openSync, readdirSync, realpathSync } from 'node:fs'
    fchdir(openSync(${JSON.stringify(scratch.path('jail'))}, 'r'))
    chroot('.')
    process.send([readdirSync('/'), process.cwd(), realpathSync('../..')])
    process.disconnect()`,
  )
  const answer = Promise.withResolvers<unknown>()
  const worker = forkWorker('jail-worker', {
    from,
    maxSemiSpace: 2,
    maxOldSpace: 64,
    capabilities: ['sys_chroot'],
    onMessage: answer.resolve,
  })
  t.after(() => worker.kill())
  worker.bulk.end()
  const { code, stderr } = await worker.exited
  assert.deepEqual([code, stderr], [0, ''])
  assert.deepEqual(await answer.promise, [['inside'], '/', '/'])
  assert.ok(existsSync(jail))
})

test('every thread of a worker holds the capabilities it was given, in a network of its own, and gets no more', async t => {
  const from = workerFile(
    'status-worker',
    `import { readFile } from 'node:fs/promises'
    import { execFileSync } from 'node:child_process'
    import { networkInterfaces } from 'node:os'
    await Promise.all(Array.from({ length: 8 }, () => readFile('/proc/self/stat')))
    const child = execFileSync('/bin/cat', ['/proc/self/status'], { encoding: 'utf8' })
    process.on('message', () => {})
    process.send({ child, interfaces: Object.keys(networkInterfaces()) })`,
  )
  const answer = Promise.withResolvers<unknown>()
  const worker = forkWorker('status-worker', {
    from,
    maxSemiSpace: 2,
    maxOldSpace: 64,
    capabilities: ['chown', 'fowner'],
    onMessage: answer.resolve,
  })
  t.after(() => worker.kill())
  void worker.exited.then(({ stderr }) => answer.reject(new Error(stderr)))
  const { child, interfaces } = (await answer.promise) as { child: string; interfaces: string[] }
  const CHOWN_AND_FOWNER = '0000000000000009'
  const threads = readdirSync(`/proc/${worker.pid}/task`)
  assert.ok(threads.length > 4, 'those of V8 and of the pool')
  const statuses = threads.map(tid => readFileSync(`/proc/${worker.pid}/task/${tid}/status`, 'utf8'))
  for (const status of [...statuses, child]) {
    const held = Object.fromEntries(
      [...status.matchAll(/^(Cap\w+|NoNewPrivs):\s*(\w+)$/gm)].map(([, name, value]) => [name, value]),
    )
    assert.deepEqual(held, {
      CapInh: '0000000000000000',
      CapPrm: CHOWN_AND_FOWNER,
      CapEff: CHOWN_AND_FOWNER,
      CapBnd: CHOWN_AND_FOWNER,
      CapAmb: '0000000000000000',
      NoNewPrivs: '1',
    })
  }
  assert.deepEqual(interfaces, [])
  for (const type of ['net', 'ipc']) {
    const [own, theirs] = ['self', worker.pid].map(pid => readlinkSync(`/proc/${pid}/ns/${type}`))
    assert.notEqual(own, theirs, type)
  }
})
