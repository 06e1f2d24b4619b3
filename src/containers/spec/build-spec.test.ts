import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type SpecChanges, someResources, specInput } from '../../../test/support/spec-input.ts'
import { dict } from '../../base/dict.ts'
import { buildSpec } from './build-spec.ts'
import type { HostDevice } from './spec.ts'

const build = (changes: SpecChanges = {}) => buildSpec(specInput(changes))
const namespaces = (changes: SpecChanges) =>
  build(changes)
    .linux.namespaces.map(({ type, path }) => (path === undefined ? type : `${type}=${path}`))
    .sort()
const refused = (changes: SpecChanges, code: string, message: RegExp) =>
  assert.throws(() => build(changes), { code, message })

const fuse: HostDevice = {
  path: '/dev/fuse',
  type: 'c',
  major: 10,
  minor: 229,
  mode: 0o666,
  uid: 0,
  gid: 0,
  access: 'rw',
}

test('the input is not changed, and the same input gives the same spec', () => {
  const input = specInput({ config: { resources: someResources({ memoryLimit: 1 << 24 }) } })
  const before = JSON.stringify(input.config)
  assert.deepEqual(buildSpec(input), buildSpec(input))
  assert.equal(JSON.stringify(input.config), before)
})

test("namespaces: the pod's by path, its own pid, no host name to set", () => {
  assert.deepEqual(namespaces({}), [
    'cgroup',
    'ipc=/pins/ipc',
    'mount',
    'network=/pins/net',
    'pid',
    'uts=/pins/uts',
  ])
  assert.equal(build().hostname, undefined)
})

test("namespaces: the node's are left out, a shared pid is joined", () => {
  const shmPath = '/dev/shm'
  const files = { shmPath, resolvConfPath: '/r', hostnamePath: '/h' }
  const node = { network: 'node', ipc: 'node', pid: 'node' } as const
  assert.deepEqual(namespaces({ namespaces: node, host: { cgroupVersion: 1 }, input: { podPaths: files } }), [
    'mount',
  ])
  const podPaths = { ...specInput().podPaths, pidns: '/proc/7/ns/pid' }
  for (const pid of ['pod', 'target'] as const) {
    assert.ok(namespaces({ namespaces: { pid }, input: { podPaths } }).includes('pid=/proc/7/ns/pid'))
    refused({ namespaces: { pid } }, 'internal', /no pid namespace/)
  }
})

test('a user namespace is joined by path, without mappings', () => {
  const map = [{ containerId: 0, hostId: 100_000, length: 65_536 }]
  const modes = specInput().pod.namespaces
  const pod = { namespaces: { ...modes, user: { mode: 'pod', uids: map, gids: map } } } as const
  const podPaths = { ...specInput().podPaths, userns: '/pins/user' }
  const { linux } = build({ pod, input: { podPaths } })
  assert.equal('uidMappings' in linux, false)
  assert.ok(linux.namespaces.some(({ type, path }) => type === 'user' && path === '/pins/user'))
})

test('devices: everything denied but the usual ones and those requested', () => {
  const { devices, resources } = build({ input: { devices: [fuse] } }).linux
  assert.deepEqual(devices, [
    { path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 },
  ])
  assert.deepEqual(resources?.devices?.[0], { allow: false, access: 'rwm' })
  assert.deepEqual(resources?.devices?.at(-1), {
    allow: true,
    type: 'c',
    major: 10,
    minor: 229,
    access: 'rw',
  })
  assert.ok(!resources?.devices?.some(entry => entry.allow && entry.type === undefined))
})

test('privileged: every device, every capability, nothing masked, no profile', () => {
  const seccomp = { kind: 'runtime-default' } as const
  const spec = build({ security: { privileged: true, seccomp }, host: { devices: [fuse] } })
  assert.deepEqual(spec.linux.resources?.devices, [{ allow: true, access: 'rwm' }])
  assert.equal(spec.linux.devices?.length, 1)
  assert.deepEqual([spec.linux.maskedPaths, spec.linux.readonlyPaths], [[], []])
  assert.equal(spec.linux.seccomp, undefined)
  assert.equal(spec.process.apparmorProfile, undefined)
  assert.ok(spec.process.capabilities?.bounding.includes('CAP_SYS_ADMIN'))
  assert.ok(!spec.linux.namespaces.some(({ type }) => type === 'cgroup'))
})

test('GHSA-7ww5-4wqc-m92c: masked paths have those that older clients lack; none is none', () => {
  assert.deepEqual(build().linux.maskedPaths, [
    '/proc/kcore',
    '/proc/interrupts',
    '/sys/devices/virtual/powercap',
  ])
  const { linux } = build({ security: { maskedPaths: [], readonlyPaths: [] } })
  assert.deepEqual([linux.maskedPaths, linux.readonlyPaths], [[], []])
})

test('AppArmor: the default unless said otherwise; where there is none only a named profile is an error', () => {
  const profile = (changes: SpecChanges) => build(changes).process.apparmorProfile
  assert.equal(profile({}), 'berth-default')
  assert.equal(profile({ security: { apparmor: { kind: 'unconfined' } } }), 'unconfined')
  const local: SpecChanges = { security: { apparmor: { kind: 'localhost', name: 'mine' } } }
  assert.equal(profile(local), 'mine')
  assert.equal(profile({ host: { apparmor: false } }), undefined)
  assert.equal(profile({ defaults: { apparmorProfile: '' } }), undefined)
  refused({ ...local, host: { apparmor: false } }, 'precondition', /this kernel has no AppArmor/)
})

test('SELinux: the labels are those that were found, none without it, and none for the process without one', () => {
  const mount = 'system_u:object_r:container_file_t:s0:c1,c2'
  const process = 'system_u:system_r:container_t:s0:c1,c2'
  const labelled = build({ input: { selinux: { process, mount } } })
  assert.deepEqual([labelled.process.selinuxLabel, labelled.linux.mountLabel], [process, mount])
  const unnamed = build({ input: { selinux: { process: '', mount } } })
  assert.deepEqual(['selinuxLabel' in unnamed.process, unnamed.linux.mountLabel], [false, mount])
  const none = build({ security: { selinux: { user: '', role: '', type: 'spc_t', level: '' } } })
  assert.deepEqual(['selinuxLabel' in none.process, 'mountLabel' in none.linux], [false, false])
})

test('limits of the request and of the configuration', () => {
  const spec = build({ config: { resources: someResources({ cpuShares: 7 }) }, defaults: { pidsLimit: 99 } })
  assert.deepEqual(spec.linux.resources?.cpu, { shares: 7 })
  assert.deepEqual(spec.linux.resources?.pids, { limit: 99 })
  assert.equal(build().linux.resources?.pids, undefined)
  assert.equal(build().linux.cgroupsPath, '/kubepods/pod1/berth-c')
})

test('who the container is stands in annotations', () => {
  const pod = { resources: someResources({ cpuShares: 5 }) }
  const annotations = build({
    pod,
    config: { annotations: dict({ 'io.kubernetes.cri.sandbox-id': 'forged' }) },
  }).annotations as Record<string, string>
  assert.equal(annotations['io.kubernetes.cri.container-type'], 'container')
  assert.equal(annotations['io.kubernetes.cri.sandbox-id'], 'a'.repeat(64))
  assert.equal(annotations['io.kubernetes.cri.sandbox-cpu-shares'], '5')
  assert.equal(annotations['io.kubernetes.cri.image-name'], 'docker.io/library/busybox:latest')
})

test('cve-2024-3154, cve-2023-6476: annotations of users pass by exact name only', () => {
  const annotations = dict({
    'org.systemd.property.ExecStop': "'x'",
    'io.allowed': 'yes',
    'io.allowed.more': 'no',
    ['__proto__']: 'x',
  })
  const spec = build({ config: { annotations }, defaults: { allowedAnnotations: ['io.allowed'] } })
  assert.equal(spec.annotations?.['io.allowed'], 'yes')
  assert.ok(
    Object.keys(spec.annotations ?? {}).every(key => /^io\.kubernetes\.cri\.|^io\.allowed$/.test(key)),
  )
})

test('CVE-2026-53492: annotations alone add neither hooks nor devices to a container', () => {
  const spec = build({ config: { annotations: dict([['cdi.k8s.io/gpu', 'vendor.com/gpu=0']]) } })
  assert.ok(!('hooks' in spec))
  assert.deepEqual(spec.linux.devices, build().linux.devices)
})
