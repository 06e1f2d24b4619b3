import assert from 'node:assert/strict'
import { test } from 'node:test'
import { capability, monitorCgroup, sysctl, ulimit, variable } from './forms.ts'
import {
  boolean,
  choice,
  duration,
  integer,
  type Kind,
  list,
  Mismatch,
  optionalPath,
  path,
  port,
  size,
  socket,
} from './kinds.ts'

function refuses(kind: Kind<unknown>, ...values: readonly unknown[]): void {
  for (const value of values) assert.throws(() => kind.fromToml(value), Mismatch, JSON.stringify(value))
}

test('paths are absolute and lose what says nothing', () => {
  assert.equal(path.fromToml('/opt//cni/./bin/'), '/opt/cni/bin')
  assert.equal(path.fromToml('/'), '/')
  assert.equal(optionalPath.fromToml(''), '')
  refuses(path, '', 'opt', '/a/../b', '/a\n', 3, null)
})

test('a socket may be written as an endpoint', () => {
  assert.equal(socket.fromToml('unix:///run/x.sock'), '/run/x.sock')
  refuses(socket, 'tcp://1.2.3.4', 'x.sock')
})

test('whole numbers keep to their range, as TOML and as text', () => {
  const kind = integer(-1, 10)
  assert.equal(kind.fromToml(-1), -1)
  assert.equal(kind.fromTexts(['3', '10']), 10)
  refuses(kind, 11, -2, 1.5, '3', true)
  for (const text of ['', 'x', '1e1', '0x1', ' 1', '11'])
    assert.throws(() => kind.fromTexts([text]), Mismatch)
})

test('a port may be a string, as CRI-O writes it', () => {
  assert.equal(port.fromToml('10010'), 10010)
  assert.equal(port.fromToml(0), 0)
  refuses(port, '', '65536', -1)
})

test('a switch without a value says yes', () => {
  assert.equal(boolean.fromTexts(['']), true)
  assert.equal(boolean.fromTexts(['false']), false)
  assert.throws(() => boolean.fromTexts(['maybe']), Mismatch)
  refuses(boolean, 'true', 1)
})

test('durations are Go durations', () => {
  const values = { '0': 0, '500ms': 500, '30s': 30_000, '1h30m': 5_400_000, '1.5s': 1500 }
  for (const [text, ms] of Object.entries(values)) assert.equal(duration.fromToml(text), ms)
  for (const text of ['1h30m', '500ms', '2m3s', '0s'])
    assert.equal(duration.toToml(duration.fromToml(text)), text)
  refuses(duration, '', '5', 5, '5 s', '1d', '9999999h', '-1s')
})

test('sizes have binary units', () => {
  assert.equal(size.fromToml('2KiB'), 2048)
  assert.equal(size.fromToml(7), 7)
  assert.equal(size.toToml(3 * 2 ** 30), '3GiB')
  assert.equal(size.toToml(1000), 1000)
  assert.equal(size.toToml(0), 0)
  refuses(size, '2KB', -1, 1.5, '99999999TiB')
})

test('lists from texts are split at commas and add up', () => {
  const kind = list(path)
  assert.deepEqual(kind.fromTexts(['/a,/b', '/c']), ['/a', '/b', '/c'])
  assert.deepEqual(kind.fromTexts(['']), [])
  refuses(kind, '/a', ['a'], [1], {})
})

test('a choice names what there is', () => {
  assert.throws(() => choice('text', 'json').fromToml('xml'), {
    message: 'expected one of "text", "json", got "xml"',
  })
})

test('capabilities are known ones, in any spelling', () => {
  assert.equal(capability.fromToml('cap_net_admin'), 'NET_ADMIN')
  refuses(capability, 'NET_ADMINS', 'ALL', '')
})

test('a sysctl cannot carry a second one', () => {
  assert.equal(sysctl.fromToml('net.ipv4.ping_group_range=0 0'), 'net.ipv4.ping_group_range=0 0')
  refuses(
    sysctl,
    'kernel.shm_rmid_forced=1+kernel.core_pattern=|/x',
    'a.b=1\nc.d=2',
    'a.b',
    '=1',
    'a=1',
    '/a/b=1',
  )
})

test('a default sysctl belongs to a namespace of the pod, not to the node', () => {
  for (const value of ['net.core.somaxconn=7', 'kernel.shm_rmid_forced=1', 'fs.mqueue.msg_max=9']) {
    assert.equal(sysctl.fromToml(value), value)
  }
  refuses(sysctl, 'vm.swappiness=1', 'kernel.core_pattern=x', 'net/ipv4/ip_forward=1', 'network.x=1')
})

test('limits and variables have their forms', () => {
  assert.equal(ulimit.fromToml('nofile=1024:-1'), 'nofile=1024:-1')
  refuses(ulimit, 'nofile', 'nofile=1', 'files=1:2', 'nofile=a:b', 'nofile=2:1', 'nofile=-1:1')
  assert.equal(variable.fromToml('A=b=c'), 'A=b=c')
  refuses(variable, 'A', '=b', '1A=b')
})

test('a cgroup of monitors is the pod, a path or a slice', () => {
  for (const value of ['', 'pod', '/berth', '/a/b', 'system.slice', 'a-b.slice']) {
    assert.equal(monitorCgroup.fromToml(value), value)
  }
  refuses(monitorCgroup, 'berth', '/a/../b', '-.slice', 'a--b.slice', 'pods')
})
