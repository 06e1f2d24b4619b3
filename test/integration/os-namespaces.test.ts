import assert from 'node:assert/strict'
import { closeSync, existsSync, openSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isCode } from '../../src/base/errors.ts'
import * as mounts from '../../src/os/mounts.ts'
import { isPinned, NamespacePins } from '../../src/os/namespaces.ts'
import * as node from '../../src/os/node.ts'
import { run } from '../../src/os/spawn.ts'
import { ScratchMount } from '../support/scratch-mount.ts'

const scratch = new ScratchMount()

const NODE = { network: false, ipc: false, uts: false, hostname: '', sysctls: {} }

test('namespaces are made, pinned, looked into, and let go', async () => {
  await node.warmThreadPool()
  const pins = await NamespacePins.open()
  const dir = scratch.directory('pins')
  mounts.makePrivateMountPoint(dir)
  const pod = join(dir, 'pod/ns')
  const here = ['net', 'ipc', 'uts'].map(name => readlinkSync(`/proc/self/ns/${name}`))
  const sysctls = { 'net.ipv4.ip_local_port_range': '40000 41000', 'kernel.shm_rmid_forced': '1' }
  await pins.create({ dir: pod, network: true, ipc: true, uts: true, hostname: 'web-0', sysctls })
  assert.deepEqual(readdirSync(pod), ['ipc', 'net', 'uts'])
  for (const name of ['net', 'ipc', 'uts']) assert.equal(isPinned(join(pod, name)), true)
  const inside = await run('/usr/bin/nsenter', {
    args: [
      ...['net', 'ipc', 'uts'].map(name => `--${name}=${pod}/${name}`),
      '/bin/sh',
      '-c',
      'hostname; cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /sys/class/net/lo/flags',
    ],
    env: { PATH: '/usr/bin:/bin' },
    timeoutMs: 10_000,
  })
  assert.match(inside.stdout.toString(), /^web-0\n40000\t41000\n1\n/)
  assert.equal(hostname() === 'web-0', false)
  assert.deepEqual(
    (await pins.interfaceCounters(join(pod, 'net'))).map(({ name }) => name),
    ['lo'],
  )
  assert.deepEqual(
    readdirSync('/proc/self/task').flatMap(task =>
      ['net', 'ipc', 'uts'].map(name => readlinkSync(`/proc/self/task/${task}/ns/${name}`)),
    ),
    readdirSync('/proc/self/task').flatMap(() => here),
  )
  pins.remove(pod)
  pins.remove(pod)
  assert.equal(existsSync(pod), false)
  assert.equal(isPinned(join(pod, 'net')), false)
  await pins.close()
  await assert.rejects(pins.create({ ...NODE, dir: pod }), /closed/)
})

test('only what is asked for is new', async () => {
  const pins = await NamespacePins.open()
  const dir = scratch.path('pins-uts')
  await pins.create({ ...NODE, dir, uts: true, hostname: 'only-uts' })
  assert.deepEqual(readdirSync(dir), ['uts'])
  pins.remove(dir)
  await pins.create({ ...NODE, dir })
  assert.deepEqual(readdirSync(dir), [])
  pins.remove(dir)
  await pins.close()
})

test('after a failure inside a namespace, calls that wait are served by a new worker', async () => {
  const pins = await NamespacePins.open()
  const dirs = ['a', 'bad', 'b', 'long', 'c'].map(name => scratch.path(`pins-${name}`))
  const requests = dirs.map(dir => ({ ...NODE, dir, network: true, uts: true, hostname: 'h' }))
  Object.assign(requests[1]!, { sysctls: { 'net.ipv4.no_such_thing': '1' } })
  Object.assign(requests[3]!, { hostname: 'x'.repeat(65) })
  const results = await Promise.allSettled(requests.map(request => pins.create(request)))
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'],
  )
  const { reason } = results[1] as PromiseRejectedResult
  assert.ok(isCode(reason, 'invalid'))
  assert.match(String(reason), /sysctl net.ipv4.no_such_thing = "1": ENOENT/)
  assert.match(String((results[3] as PromiseRejectedResult).reason), /EINVAL: .*, sethostname/)
  for (const [i, dir] of dirs.entries()) {
    assert.equal(isPinned(join(dir, 'net')), i % 2 === 0)
    pins.remove(dir)
    assert.equal(existsSync(dir), false)
  }
  await pins.close()
})

test('a pin that a crash left half made is cleared away', async () => {
  const pins = await NamespacePins.open()
  const dir = scratch.directory('pins-half')
  writeFileSync(join(dir, 'net'), '')
  await assert.rejects(pins.create({ ...NODE, dir, network: true }), /EEXIST/)
  pins.remove(dir)
  await pins.create({ ...NODE, dir, network: true })
  pins.remove(dir)
  await pins.close()
})

test('a call that hangs in the kernel fails, and the next ones are served', async t => {
  const pins = await NamespacePins.open()
  const fifo = scratch.path('fifo')
  await run('/usr/bin/mkfifo', { args: [fifo], env: {}, timeoutMs: 10_000 })
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const hangs = pins.interfaceCounters(fifo) // opening it waits for a writer
  const waits = pins.create({ ...NODE, dir: scratch.path('pins-late'), uts: true, hostname: 'late' })
  t.mock.timers.tick(29_999)
  const next = pins.create({ ...NODE, dir: scratch.path('pins-next'), uts: true, hostname: 'next' })
  t.mock.timers.tick(1)
  await assert.rejects(hangs, error => isCode(error, 'deadline'))
  await assert.rejects(waits, error => isCode(error, 'deadline'))
  const writer = openSync(fifo, 'r+') // lets the worker go, which then ends
  await next
  closeSync(writer)
  for (const name of ['late', 'next']) pins.remove(scratch.path(`pins-${name}`))
  await pins.close()
})
