import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { listHostDevices, resolveDevice } from './host-devices.ts'

test("the node's devices: numbers as the kernel has them, without terminals and shared memory", () => {
  const devices = listHostDevices()
  const found = devices.find(({ path }) => path === '/dev/null')
  assert.deepEqual([found?.type, found?.major, found?.minor, found?.access], ['c', 1, 3, 'rwm'])
  assert.ok(!devices.some(({ path }) => /^\/dev\/(pts|shm|mqueue)\/|^\/dev\/console$/.test(path)))
})

test('one requested device, under another name, through a link, with its permissions', t => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-devices-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const link = join(directory, 'link')
  symlinkSync('/dev/zero', link)
  const [device] = resolveDevice(
    { hostPath: link, containerPath: '/dev/nil', permissions: 'r' },
    'config.devices[0]',
  )
  assert.deepEqual([device?.path, device?.major, device?.minor, device?.access], ['/dev/nil', 1, 5, 'r'])
})

test('a directory stands for the devices below it, in its new place', () => {
  const devices = resolveDevice(
    { hostPath: '/dev', containerPath: '/host', permissions: '' },
    'config.devices[0]',
  )
  assert.ok(devices.some(({ path, access }) => path === '/host/null' && access === 'rwm'))
})

test('what is no device is refused by field', () => {
  const refuse = (hostPath: string, permissions: string, message: RegExp) =>
    assert.throws(() => resolveDevice({ hostPath, containerPath: '', permissions }, 'config.devices[0]'), {
      code: 'invalid',
      message,
    })
  refuse('/dev/not-there', 'rwm', /config\.devices\[0\]\.host_path: "\/dev\/not-there" does not exist/)
  refuse('/etc/passwd', 'rwm', /is no device/)
  refuse('/proc/self', 'rwm', /is no device/)
  refuse('/dev/null', 'rwx', /permissions/)
})

test('a directory of other things is not searched to its end', t => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-devices-'))
  t.after(() => rmSync(directory, { recursive: true }))
  for (let i = 0; i <= 10_000; i++) writeFileSync(join(directory, `${i}`), '')
  assert.throws(
    () => resolveDevice({ hostPath: directory, containerPath: '', permissions: '' }, 'config.devices[0]'),
    {
      code: 'invalid',
      message: /^config\.devices\[0\]\.host_path: .* has more than 10000 entries/,
    },
  )
})

test('below a requested directory devices are found down to a depth', t => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-devices-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const at = (depth: number) => join(directory, ...Array.from({ length: depth }, () => 'd'), 'null')
  mkdirSync(dirname(at(9)), { recursive: true })
  for (const depth of [8, 9]) execFileSync('mknod', [at(depth), 'c', '1', '3'])
  const devices = resolveDevice(
    { hostPath: directory, containerPath: '', permissions: '' },
    'config.devices[0]',
  )
  assert.deepEqual(
    devices.map(({ path }) => path),
    [at(8)],
  )
})
