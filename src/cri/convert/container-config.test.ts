import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refuses, wire } from '../../../test/support/cri-wire.ts'
import { dict } from '../../base/dict.ts'
import type { ContainerConfig } from '../../model/container.ts'
import type { ContainerConfig as WireConfig } from '../generated/runtime/v1/ContainerConfig.ts'
import type { LinuxContainerSecurityContext } from '../generated/runtime/v1/LinuxContainerSecurityContext.ts'
import type { Mount } from '../generated/runtime/v1/Mount.ts'
import { toContainerConfig } from './container-config.ts'

const required: WireConfig = { metadata: { name: 'main', attempt: 1 }, image: { image: 'busybox' } }

function convert(config: WireConfig | null): ContainerConfig {
  return toContainerConfig('config', wire.createContainer({ config }).config)
}

const MINIMAL: ContainerConfig = {
  metadata: { name: 'main', attempt: 1 },
  image: 'busybox',
  userSpecifiedImage: '',
  command: [],
  args: [],
  workingDir: '',
  envs: [],
  mounts: [],
  devices: [],
  cdiDevices: [],
  labels: dict(),
  annotations: dict(),
  logPath: '',
  stdin: false,
  stdinOnce: false,
  tty: false,
  security: {
    capabilities: { add: [], drop: [], addAmbient: [] },
    privileged: false,
    namespaces: { network: 'pod', pid: 'pod', ipc: 'pod', targetId: '' },
    runAsUsername: '',
    supplementalGroups: [],
    supplementalGroupsPolicy: 'merge',
    readonlyRootfs: false,
    noNewPrivs: false,
    maskedPaths: [],
    readonlyPaths: [],
  },
  stopSignal: '',
}

test('an absent message has the defaults of the interface', () => {
  assert.deepEqual(convert(required), MINIMAL)
  assert.deepEqual(convert({ ...required, linux: { security_context: {} } }), MINIMAL)
})

const FULL_SECURITY: LinuxContainerSecurityContext = {
  capabilities: {
    add_capabilities: ['NET_ADMIN'],
    drop_capabilities: ['ALL'],
    add_ambient_capabilities: ['CAP_CHOWN'],
  },
  privileged: true,
  namespace_options: { network: 'NODE', pid: 'TARGET', ipc: 'NODE', target_id: 'c1' },
  selinux_options: { level: 's0:c1' },
  run_as_username: 'web',
  run_as_group: { value: 5 },
  readonly_rootfs: true,
  supplemental_groups: [7],
  supplemental_groups_policy: 'Strict',
  no_new_privs: true,
  masked_paths: ['/proc/kcore'],
  readonly_paths: ['/proc/sys/'],
  seccomp: { profile_type: 'RuntimeDefault' },
  apparmor_profile: 'localhost/web',
}

const FULL: WireConfig = {
  metadata: { name: 'main', attempt: 1 },
  image: { image: 'sha256:abc', user_specified_image: 'web:1' },
  command: ['/bin/sh', '-c'],
  args: ['a\nb', ''],
  working_dir: '/srv/./app/',
  envs: [
    { key: 'A', value: '1=2\n3' },
    { key: 'A', value: '' },
  ],
  mounts: [
    {
      container_path: '/dev//termination-log',
      host_path: '/var/lib/kubelet/x/',
      readonly: true,
      recursive_read_only: true,
      selinux_relabel: true,
      uidMappings: [{ container_id: 0, host_id: 7, length: 1 }],
      gidMappings: [{ container_id: 0, host_id: 8, length: 1 }],
    },
    {
      container_path: '/model',
      readonly: true,
      image: { image: 'sha256:def' },
      image_sub_path: 'a/./b',
      propagation: 'PROPAGATION_BIDIRECTIONAL',
    },
  ],
  devices: [{ container_path: '/dev/fuse', host_path: '/dev/fuse', permissions: 'mrw' }],
  CDI_devices: [{ name: 'vendor.com/gpu=gpu0' }],
  labels: dict([['__proto__', 'x']]),
  annotations: dict([['toString', 'y']]),
  log_path: 'main/1.log',
  stdin: true,
  stdin_once: true,
  tty: true,
  linux: { resources: { cpu_shares: 512 }, security_context: FULL_SECURITY },
  stop_signal: 'SIGRTMINPLUS3',
}

test('every field arrives', () => {
  const { security, resources, ...config } = convert(FULL)
  assert.deepEqual(config, {
    metadata: { name: 'main', attempt: 1 },
    image: 'sha256:abc',
    userSpecifiedImage: 'web:1',
    command: ['/bin/sh', '-c'],
    args: ['a\nb', ''],
    workingDir: '/srv/app',
    envs: [
      ['A', '1=2\n3'],
      ['A', ''],
    ],
    mounts: [
      {
        containerPath: '/dev//termination-log',
        hostPath: '/var/lib/kubelet/x',
        readonly: true,
        recursiveReadOnly: true,
        selinuxRelabel: true,
        propagation: 'private',
        uidMappings: [{ containerId: 0, hostId: 7, length: 1 }],
        gidMappings: [{ containerId: 0, hostId: 8, length: 1 }],
      },
      {
        containerPath: '/model',
        hostPath: '',
        image: { ref: 'sha256:def', subPath: 'a/b' },
        readonly: true,
        recursiveReadOnly: false,
        selinuxRelabel: false,
        propagation: 'rshared',
        uidMappings: [],
        gidMappings: [],
      },
    ],
    devices: [{ containerPath: '/dev/fuse', hostPath: '/dev/fuse', permissions: 'mrw' }],
    cdiDevices: ['vendor.com/gpu=gpu0'],
    labels: dict([['__proto__', 'x']]),
    annotations: dict([['toString', 'y']]),
    logPath: 'main/1.log',
    stdin: true,
    stdinOnce: true,
    tty: true,
    stopSignal: 'SIGRTMIN+3',
  })
  assert.equal(resources?.cpuShares, 512)
  assert.deepEqual(security, {
    capabilities: { add: ['NET_ADMIN'], drop: ['ALL'], addAmbient: ['CAP_CHOWN'] },
    privileged: true,
    namespaces: { network: 'node', pid: 'target', ipc: 'node', targetId: 'c1' },
    selinux: { user: '', role: '', type: '', level: 's0:c1' },
    runAsUsername: 'web',
    runAsGroup: 5,
    readonlyRootfs: true,
    supplementalGroups: [7],
    supplementalGroupsPolicy: 'strict',
    noNewPrivs: true,
    maskedPaths: ['/proc/kcore'],
    readonlyPaths: ['/proc/sys'],
    seccomp: { kind: 'runtime-default' },
    apparmor: { kind: 'localhost', name: 'web' },
  } satisfies ContainerConfig['security'])
})

const mount = (changes: Mount): WireConfig => ({
  ...required,
  mounts: [{ container_path: '/c', host_path: '/h', ...changes }],
})
const imageMount = (changes: Mount): WireConfig =>
  mount({ host_path: '', readonly: true, image: { image: 'i' }, ...changes })
const security = (context: LinuxContainerSecurityContext): WireConfig => ({
  ...required,
  linux: { security_context: context },
})
const device = { container_path: '/dev/x', host_path: '/dev/x', permissions: 'r' }

refuses(convert, [
  ['no config', null, 'config: must be set'],
  ['no metadata', { ...required, metadata: null }, 'config.metadata: must be set'],
  ['no name', { ...required, metadata: { name: '' } }, 'config.metadata.name: must not be empty'],
  ['no image', { ...required, image: null }, 'config.image: must be set'],
  ['an image without a name', { ...required, image: {} }, 'config.image.image: must not be empty'],
  ['NUL in an argument', { ...required, args: ['a', 'b\0'] }, 'config.args[1]: must not contain a NUL'],
  ['NUL in the command', { ...required, command: ['\0'] }, 'config.command[0]: must not contain a NUL'],
  [
    'a relative working directory',
    { ...required, working_dir: 'srv' },
    'config.working_dir: must be an absolute',
  ],
  [
    'a descriptor as working directory',
    { ...required, working_dir: '//proc/self/fd/7' },
    'config.working_dir: must not be in /proc',
  ],
  [
    'a variable without a name',
    { ...required, envs: [{ key: '', value: 'x' }] },
    'config.envs[0].key: must not be empty',
  ],
  [
    '= in the name of a variable',
    { ...required, envs: [{ key: 'a=b' }] },
    "config.envs[0].key: must not contain '='",
  ],
  [
    'NUL in the value of a variable',
    { ...required, envs: [{ key: 'a', value: '\0' }] },
    'config.envs[0].value: must not contain a NUL',
  ],
  [
    'a relative mount point',
    mount({ container_path: 'c' }),
    'config.mounts[0].container_path: must be an absolute',
  ],
  [
    'a mount over the root',
    mount({ container_path: '/.//' }),
    'config.mounts[0].container_path: must not be the root',
  ],
  [
    'a mount without a source',
    mount({ host_path: '' }),
    'config.mounts[0].host_path: must be an absolute path',
  ],
  ['a source with dots', mount({ host_path: '/a/..' }), "config.mounts[0].host_path: must not contain '..'"],
  ['an unknown propagation', mount({ propagation: 3 as 0 }), 'config.mounts[0].propagation: expected one of'],
  [
    'recursive without read-only',
    mount({ recursive_read_only: true }),
    'config.mounts[0].recursive_read_only: needs readonly',
  ],
  [
    'recursive read-only with propagation',
    mount({ recursive_read_only: true, readonly: true, propagation: 'PROPAGATION_HOST_TO_CONTAINER' }),
    'config.mounts[0].recursive_read_only: needs PROPAGATION_PRIVATE',
  ],
  [
    'an empty id mapping of a mount',
    mount({ uidMappings: [{}] }),
    'config.mounts[0].uidMappings[0].length: must be at least 1',
  ],
  [
    'a writable image mount',
    imageMount({ readonly: false }),
    'config.mounts[0].readonly: must be true with image',
  ],
  [
    'an image mount of a directory',
    imageMount({ host_path: '/h' }),
    'config.mounts[0].host_path: must be empty with image',
  ],
  [
    'an image mount without a name',
    imageMount({ image: {} }),
    'config.mounts[0].image.image: must not be empty',
  ],
  [
    'an absolute path in an image',
    imageMount({ image_sub_path: '/etc' }),
    'config.mounts[0].image_sub_path: must be a relative',
  ],
  [
    'a way out of an image',
    imageMount({ image_sub_path: 'a/../../b' }),
    "config.mounts[0].image_sub_path: must not contain '..'",
  ],
  ['a path in no image', mount({ image_sub_path: 'a' }), 'config.mounts[0].image_sub_path: needs image'],
  [
    'a device without a path',
    { ...required, devices: [{ ...device, container_path: '' }] },
    'config.devices[0].container_path: must be an absolute',
  ],
  [
    'a device without permissions',
    { ...required, devices: [{ ...device, permissions: '' }] },
    'config.devices[0].permissions: expected some of r, w and m',
  ],
  [
    'unknown permissions',
    { ...required, devices: [{ ...device, permissions: 'rx' }] },
    'config.devices[0].permissions: expected',
  ],
  [
    'a device without a vendor',
    { ...required, CDI_devices: [{ name: 'gpu=0' }] },
    'config.CDI_devices[0].name: expected vendor/class=device',
  ],
  [
    'an absolute log path',
    { ...required, log_path: '/var/log/x' },
    'config.log_path: must be a relative path',
  ],
  [
    'a log outside the directory',
    { ...required, log_path: 'a/../../x' },
    "config.log_path: must not contain '..'",
  ],
  ['a colon in the log path', { ...required, log_path: 'a:b' }, "config.log_path: must not contain ':'"],
  [
    'a name too long for a file in the log path',
    { ...required, log_path: 'n'.repeat(256) },
    'config.log_path: a name in it must be at most 255 bytes',
  ],
  [
    'a log path too long beside the directory',
    { ...required, log_path: 'n/'.repeat(600) },
    'config.log_path: must be at most 1024 bytes',
  ],
  [
    'a name too long',
    { ...required, metadata: { name: 'ä'.repeat(128) } },
    'config.metadata.name: must be at most 255 bytes',
  ],
  [
    'an unknown signal',
    { ...required, stop_signal: 99 as 0 },
    'config.stop_signal: expected one of RUNTIME_DEFAULT, SIGABRT',
  ],
  [
    'a group without a user',
    security({ run_as_group: { value: 1 } }),
    'config.linux.security_context.run_as_group: needs run_as_user or',
  ],
  [
    'two kinds of user',
    security({ run_as_user: { value: 1 }, run_as_username: 'a' }),
    'config.linux.security_context.run_as_username: must be empty',
  ],
  [
    'a line break in a user name',
    security({ run_as_username: 'a\nb' }),
    'config.linux.security_context.run_as_username: must not contain control',
  ],
  [
    'something else as a capability',
    security({ capabilities: { add_capabilities: ['NET-ADMIN'] } }),
    'config.linux.security_context.capabilities.add_capabilities[0]: expected a capability',
  ],
  [
    'a relative masked path',
    security({ masked_paths: ['proc'] }),
    'config.linux.security_context.masked_paths[0]: must be an absolute',
  ],
  [
    'a relative read-only path',
    security({ readonly_paths: ['/a', ''] }),
    'config.linux.security_context.readonly_paths[1]: must be an absolute',
  ],
  [
    'an unknown AppArmor profile',
    security({ apparmor_profile: 'web' }),
    'config.linux.security_context.apparmor_profile: expected runtime/default',
  ],
])
