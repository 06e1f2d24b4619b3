import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refuses, wire } from '../../../test/support/cri-wire.ts'
import { dict } from '../../base/dict.ts'
import type { PodConfig } from '../../model/pod.ts'
import type { LinuxResources } from '../../model/security.ts'
import type { LinuxPodSandboxConfig } from '../generated/runtime/v1/LinuxPodSandboxConfig.ts'
import type { PodSandboxConfig } from '../generated/runtime/v1/PodSandboxConfig.ts'
import { type CgroupDriver, toPodConfig } from './pod-config.ts'

const metadata = { name: 'web', uid: 'u1', namespace: 'default', attempt: 3 }

function convert(config: PodSandboxConfig | null, driver: CgroupDriver = 'cgroupfs'): PodConfig {
  return toPodConfig('config', wire.runPod({ config }).config, driver)
}

const MINIMAL: PodConfig = {
  metadata,
  hostname: '',
  logDirectory: '',
  portMappings: [],
  labels: dict(),
  annotations: dict(),
  cgroupParent: '',
  sysctls: dict(),
  namespaces: { network: 'pod', pid: 'pod', ipc: 'pod', targetId: '' },
  privileged: false,
  readonlyRootfs: false,
  supplementalGroups: [],
  supplementalGroupsPolicy: 'merge',
}

test('an absent message has the defaults of the interface', () => {
  assert.deepEqual(convert({ metadata }), MINIMAL)
  assert.deepEqual(convert({ metadata, dns_config: {}, linux: { security_context: {} } }), MINIMAL)
})

const mapping = [{ container_id: 0, host_id: 65_536, length: 65_536 }]
const ids = [{ containerId: 0, hostId: 65_536, length: 65_536 }]

const FULL_WIRE: PodSandboxConfig = {
  metadata,
  hostname: 'web-0',
  log_directory: '/var/log/pods/default_web_u1/',
  dns_config: { servers: ['10.0.0.10', 'fd00::a'], searches: ['svc.local'], options: ['ndots:5'] },
  port_mappings: [
    { protocol: 'UDP', container_port: 53, host_port: 5353, host_ip: '127.0.0.1' },
    { protocol: 'SCTP', container_port: 0, host_port: 0 },
  ],
  labels: dict([['__proto__', 'x']]),
  annotations: dict([['constructor', '']]),
  linux: {
    cgroup_parent: '/kubepods//burstable/podu1/',
    sysctls: { 'net/ipv4/conf/eth0.1/forwarding': '1', 'kernel.shm_rmid_forced': '1' },
    overhead: { memory_limit_in_bytes: 1024 },
    resources: { cpu_shares: 2 },
    security_context: {
      namespace_options: {
        network: 'POD',
        pid: 'CONTAINER',
        ipc: 'POD',
        userns_options: { mode: 'POD', uids: mapping, gids: mapping },
      },
      selinux_options: { user: 'system_u', role: 'r', type: 'container_t', level: 's0:c1,c2' },
      run_as_user: { value: 0 },
      run_as_group: { value: 2_147_483_647 },
      readonly_rootfs: true,
      supplemental_groups: [1, 2],
      supplemental_groups_policy: 'Strict',
      privileged: true,
      seccomp: { profile_type: 'Localhost', localhost_ref: '/profiles/a.json' },
      apparmor: { profile_type: 'Localhost', localhost_ref: 'localhost/web' },
    },
  },
}

const UNLIMITED: LinuxResources = {
  cpuPeriod: 0,
  cpuQuota: 0,
  cpuShares: 0,
  memoryLimit: 0,
  memorySwapLimit: 0,
  oomScoreAdj: 0,
  cpusetCpus: '',
  cpusetMems: '',
  hugepageLimits: [],
  unified: dict(),
}

const FULL: PodConfig = {
  metadata,
  hostname: 'web-0',
  logDirectory: '/var/log/pods/default_web_u1',
  dns: { servers: ['10.0.0.10', 'fd00::a'], searches: ['svc.local'], options: ['ndots:5'] },
  portMappings: [
    { protocol: 'udp', containerPort: 53, hostPort: 5353, hostIp: '127.0.0.1' },
    { protocol: 'sctp', containerPort: 0, hostPort: 0, hostIp: '' },
  ],
  labels: dict([['__proto__', 'x']]),
  annotations: dict([['constructor', '']]),
  cgroupParent: '/kubepods/burstable/podu1',
  sysctls: dict([
    ['net.ipv4.conf.eth0/1.forwarding', '1'],
    ['kernel.shm_rmid_forced', '1'],
  ]),
  overhead: { ...UNLIMITED, memoryLimit: 1024 },
  resources: { ...UNLIMITED, cpuShares: 2 },
  namespaces: {
    network: 'pod',
    pid: 'container',
    ipc: 'pod',
    targetId: '',
    user: { mode: 'pod', uids: ids, gids: ids },
  },
  selinux: { user: 'system_u', role: 'r', type: 'container_t', level: 's0:c1,c2' },
  runAsUser: 0,
  runAsGroup: 2_147_483_647,
  readonlyRootfs: true,
  supplementalGroups: [1, 2],
  supplementalGroupsPolicy: 'strict',
  privileged: true,
  seccomp: { kind: 'localhost', path: '/profiles/a.json' },
  apparmor: { kind: 'localhost', name: 'web' },
}

test('every field arrives', () => {
  assert.deepEqual(convert(FULL_WIRE), FULL)
})

test('a cgroup parent is a slice with systemd and a path with cgroupfs', () => {
  const parent = (cgroup_parent: string, driver: CgroupDriver) =>
    convert({ metadata, linux: { cgroup_parent } }, driver).cgroupParent
  assert.equal(
    parent('/kubepods.slice/kubepods-podx.slice', 'systemd'),
    '/kubepods.slice/kubepods-podx.slice',
  )
  assert.equal(parent('system.slice', 'systemd'), '/system.slice')
  assert.equal(parent('a-b.slice', 'systemd'), '/a.slice/a-b.slice')
  const field = /^config\.linux\.cgroup_parent: /
  const refused = (text: string, driver: CgroupDriver, why: RegExp) => {
    assert.throws(() => parent(text, driver), { code: 'invalid', message: field })
    assert.throws(() => parent(text, driver), { message: why })
  }
  refused('/kubepods/podx', 'systemd', /must end in the name of a slice/)
  refused('/a--b.slice', 'systemd', /must end in the name of a slice/)
  refused('/kubepods.slice', 'cgroupfs', /must not end in \.slice/)
  refused('kubepods', 'cgroupfs', /absolute/)
  refused('/../x', 'cgroupfs', /'\.\.'/)
  refused('/a:b.slice', 'systemd', /':'/)
})

const base = { metadata }
const linux = (config: LinuxPodSandboxConfig): PodSandboxConfig => ({ metadata, linux: config })

refuses(convert, [
  ['no config', null, 'config: must be set'],
  ['no metadata', {}, 'config.metadata: must be set'],
  ['no name', { metadata: { ...metadata, name: '' } }, 'config.metadata.name: must not be empty'],
  ['no uid', { metadata: { ...metadata, uid: '' } }, 'config.metadata.uid: must not be empty'],
  [
    'no namespace',
    { metadata: { ...metadata, namespace: '' } },
    'config.metadata.namespace: must not be empty',
  ],
  [
    'a line break in a name',
    { metadata: { ...metadata, name: 'a\nb' } },
    'config.metadata.name: must not contain control characters',
  ],
  [
    'a long host name',
    { ...base, hostname: 'x'.repeat(65) },
    'config.hostname: must be at most 64 bytes long',
  ],
  ['a host name with a space', { ...base, hostname: 'a b' }, 'config.hostname: expected letters, digits'],
  [
    'a relative log directory',
    { ...base, log_directory: 'logs' },
    'config.log_directory: must be an absolute',
  ],
  [
    'dots in the log directory',
    { ...base, log_directory: '/a/../b' },
    "config.log_directory: must not contain '..'",
  ],
  [
    'a colon in the log directory',
    { ...base, log_directory: '/a:b' },
    "config.log_directory: must not contain ':'",
  ],
  [
    'a log directory too long',
    { ...base, log_directory: '/d'.repeat(1501) },
    'config.log_directory: must be at most 3000 bytes',
  ],
  [
    'a cgroup parent too long',
    { ...base, linux: { cgroup_parent: '/d'.repeat(1501) } },
    'config.linux.cgroup_parent: must be at most 3000 bytes',
  ],
  [
    'NUL in the log directory',
    { ...base, log_directory: '/a\0b' },
    'config.log_directory: must not contain control',
  ],
  [
    'a long log directory',
    { ...base, log_directory: `/${'x'.repeat(4095)}` },
    'config.log_directory: must be at most',
  ],
  [
    'a name as a name server',
    { ...base, dns_config: { servers: ['dns'] } },
    'config.dns_config.servers[0]: expected an IP',
  ],
  [
    'two search domains in one',
    { ...base, dns_config: { searches: ['a', 'b c'] } },
    'config.dns_config.searches[1]: must not contain white space',
  ],
  [
    'a second line in an option',
    { ...base, dns_config: { options: ['a\nnameserver 6.6.6.6'] } },
    'config.dns_config.options[0]: must not contain white space',
  ],
  [
    'an empty option',
    { ...base, dns_config: { options: [''] } },
    'config.dns_config.options[0]: must not be empty',
  ],
  [
    'a host port that is none',
    { ...base, port_mappings: [{ container_port: 1, host_port: 65_536 }] },
    'config.port_mappings[0].host_port: must be between 0 and 65535, got 65536',
  ],
  [
    'a negative container port',
    { ...base, port_mappings: [{ container_port: -1 }] },
    'config.port_mappings[0].container_port: must be between 0 and 65535',
  ],
  [
    'a host port without a container port',
    { ...base, port_mappings: [{ host_port: 80 }] },
    'config.port_mappings[0].container_port: must be between 1 and 65535',
  ],
  [
    'a name as a host address',
    { ...base, port_mappings: [{ container_port: 1, host_ip: 'localhost' }] },
    'config.port_mappings[0].host_ip: expected an IP address',
  ],
  [
    'an unknown protocol',
    { ...base, port_mappings: [{ protocol: 9 as 0, container_port: 1 }] },
    'config.port_mappings[0].protocol: expected one of TCP, UDP, SCTP, got 9',
  ],
  [
    'a bad limit of the pod',
    linux({ resources: { oom_score_adj: 1001 } }),
    'config.linux.resources.oom_score_adj: must be between -1000 and 1000',
  ],
  [
    'a bad overhead',
    linux({ overhead: { cpu_shares: -1 } }),
    'config.linux.overhead.cpu_shares: must be at least 0',
  ],
])
