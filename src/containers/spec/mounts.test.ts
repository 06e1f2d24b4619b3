import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type SpecChanges, specInput } from '../../../test/support/spec-input.ts'
import type { Mount } from '../../model/container.ts'
import { buildMounts, rootfsPropagation } from './mounts.ts'
import type { ResolvedMount, SpecInput } from './spec.ts'

function mount(containerPath: string, changes: Partial<Mount> & Partial<ResolvedMount> = {}): ResolvedMount {
  const { source = '/host', shared = true, slave = false, ...rest } = changes
  return {
    mount: {
      containerPath,
      hostPath: source,
      readonly: false,
      recursiveReadOnly: false,
      selinuxRelabel: false,
      propagation: 'private',
      uidMappings: [],
      gidMappings: [],
      ...rest,
    },
    source,
    shared,
    slave,
  }
}

const build = (mounts: ResolvedMount[], changes: SpecChanges = {}) =>
  buildMounts(specInput({ ...changes, input: { ...changes.input, mounts } }))
const find = (list: ReturnType<typeof build>, destination: string) =>
  list.filter(entry => entry.destination === destination)
const refused = (list: ResolvedMount[], code: string, message: RegExp, input: Partial<SpecInput> = {}) =>
  assert.throws(() => build(list, { input }), { code, message })

test('CVE-2026-88264, CVE-2026-88265: a fresh /dev always; the kernel file systems and the files of the pod', () => {
  assert.deepEqual(
    build([]).map(({ destination, source }) => `${destination} ${source}`),
    [
      '/proc proc',
      '/dev tmpfs',
      '/sys sysfs',
      '/dev/pts devpts',
      '/dev/mqueue mqueue',
      '/dev/shm /pod/shm',
      '/etc/resolv.conf /pod/resolv.conf',
      '/etc/hostname /pod/hostname',
      '/sys/fs/cgroup cgroup',
    ],
  )
})

test('kernel file systems are read-only unless privileged, files of the pod follow the root', () => {
  const access = (changes: SpecChanges, destination: string) =>
    find(build([], changes), destination)[0]?.options?.find(option => option === 'ro' || option === 'rw')
  for (const destination of ['/sys', '/sys/fs/cgroup']) {
    assert.equal(access({}, destination), 'ro')
    assert.equal(access({ security: { privileged: true } }, destination), 'rw')
  }
  assert.equal(access({}, '/etc/hostname'), 'rw')
  assert.equal(access({ security: { readonlyRootfs: true } }, '/etc/hostname'), 'ro')
})

test("a user namespace on the node's network sees the node's /sys", () => {
  const ids = [{ containerId: 0, hostId: 100_000, length: 65_536 }]
  const user = { mode: 'pod', uids: ids, gids: ids } as const
  const pod = { namespaces: { network: 'node', pid: 'container', ipc: 'pod', targetId: '', user } } as const
  const sys = find(build([], { pod, namespaces: { network: 'node' } }), '/sys')[0]
  assert.equal(sys?.type, 'bind')
  assert.ok(sys.options?.includes('ro'))
  assert.equal(find(build([], { namespaces: { network: 'node' } }), '/sys')[0]?.type, 'sysfs')
})

test('a requested mount replaces ours at the same place', () => {
  for (const destination of ['/etc/hosts', '/etc/resolv.conf', '/dev/shm', '/sys']) {
    const podPaths = { ...specInput().podPaths, hostsPath: '/pod/hosts' }
    const found = find(build([mount(`${destination}/`)], { input: { podPaths } }), destination)
    assert.deepEqual(
      found.map(entry => entry.source),
      ['/host'],
    )
  }
})

test('a requested /dev replaces everything in it', () => {
  const below = build([mount('/dev')]).filter(entry => entry.destination.startsWith('/dev'))
  assert.deepEqual(
    below.map(entry => entry.source),
    ['/host'],
  )
})

test('parents come before what lies in them, ours before those requested, the request keeps its order', () => {
  const list = build([mount('/a/b/c'), mount('/a'), mount('/a/b'), mount('/b')])
  const order = list.map(entry => entry.destination).filter(destination => /^\/[ab]/.test(destination))
  assert.deepEqual(order, ['/a', '/b', '/a/b', '/a/b/c'])
})

test('options: access, propagation, recursive read-only, id mappings', () => {
  const options = (changes: Partial<Mount>) => find(build([mount('/m', changes)]), '/m')[0]?.options
  assert.deepEqual(options({}), ['rbind', 'rprivate', 'rw'])
  assert.deepEqual(options({ readonly: true, propagation: 'rslave' }), ['rbind', 'rslave', 'ro'])
  assert.deepEqual(options({ readonly: true, recursiveReadOnly: true }), ['rbind', 'rprivate', 'ro', 'rro'])
  const uidMappings = [{ containerId: 0, hostId: 1000, length: 1 }]
  assert.deepEqual(find(build([mount('/m', { uidMappings })]), '/m')[0]?.uidMappings, [
    { containerID: 0, hostID: 1000, size: 1 },
  ])
})

test('what cannot be granted is refused by field', () => {
  const none = { features: { recursiveReadOnly: false, idmap: false, seccomp: true } }
  refused([mount('/m', { recursiveReadOnly: true })], 'invalid', /recursive_read_only: needs readonly/)
  const rro = { readonly: true, recursiveReadOnly: true } as const
  refused([mount('/m', { ...rro, propagation: 'rslave' })], 'invalid', /private propagation/)
  refused([mount('/m', rro)], 'precondition', /cannot do it/, none)
  refused([mount('/m', { image: { ref: 'x', subPath: '' } })], 'invalid', /mounts\[0\]\.readonly/)
  const uidMappings = [{ containerId: 0, hostId: 0, length: 1 }]
  refused([mount('/m', { uidMappings })], 'precondition', /config\.mounts\[0\]\.uidMappings/, none)
  refused(
    [mount('/m', { propagation: 'rshared', shared: false, slave: true })],
    'precondition',
    /is not shared/,
  )
  refused(
    [mount('/m', { propagation: 'rslave', shared: false })],
    'precondition',
    /neither shared nor a slave/,
  )
})

test('the propagation of the root follows that of the mounts', () => {
  const of = (...list: ResolvedMount[]) => rootfsPropagation(specInput({ input: { mounts: list } }))
  assert.equal(of(mount('/a')), undefined)
  assert.equal(of(mount('/a'), mount('/b', { propagation: 'rslave' })), 'rslave')
  assert.equal(of(mount('/a', { propagation: 'rslave' }), mount('/b', { propagation: 'rshared' })), 'rshared')
})

test('CVE-2019-16884, CVE-2023-27561: destinations in /proc and the root itself are refused', () => {
  for (const path of [
    '/',
    '/..',
    'relative',
    '/a\0',
    '/proc/self/attr',
    '/proc/sys',
    '/x/../proc/1',
    '/proc',
  ]) {
    refused([mount(path)], 'invalid', /config\.mounts\[0\]\.container_path/)
  }
  assert.equal(find(build([mount('/proc/cpuinfo')]), '/proc/cpuinfo').length, 1)
  assert.equal(find(build([mount('/proc', { source: '/proc' })]), '/proc').length, 1)
  assert.equal(find(build([mount('/proc/sys')], { security: { privileged: true } }), '/proc/sys').length, 1)
})

test('whatever is requested: no destination of ours twice, and no child before its parent', () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'dev', 'shm', 'etc', 'hosts', 'sys'), { minLength: 1, maxLength: 4 })
    .map(parts => `/${parts.join('/')}`)
  fc.assert(
    fc.property(fc.uniqueArray(path, { maxLength: 8 }), paths => {
      const list = build(paths.map(destination => mount(destination))).map(entry => entry.destination)
      assert.equal(new Set(list).size, list.length)
      for (const [at, destination] of list.entries()) {
        assert.ok(!list.slice(0, at).some(earlier => earlier.startsWith(`${destination}/`)))
      }
    }),
  )
})

test('CVE-2021-43816: a mount that asks for a label changes none on the node', () => {
  const [relabeled] = find(build([mount('/x', { selinuxRelabel: true, source: '/etc' })]), '/x')
  const [plain] = find(build([mount('/x', { source: '/etc' })]), '/x')
  assert.deepEqual(relabeled, plain)
})
