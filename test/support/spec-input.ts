import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { dict } from '../../src/base/dict.ts'
import { parseSeccompProfile, type SeccompRules } from '../../src/containers/spec/seccomp-profile.ts'
import type { SpecInput } from '../../src/containers/spec/spec.ts'
import type { ContainerConfig, ContainerSecurity } from '../../src/model/container.ts'
import type { NamespaceOptions, PodConfig } from '../../src/model/pod.ts'
import type { LinuxResources } from '../../src/model/security.ts'
import { CAPABILITIES } from '../../src/os/capabilities.ts'

const namespaces: NamespaceOptions = { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' }

const security: ContainerSecurity = {
  capabilities: { add: [], drop: [], addAmbient: [] },
  privileged: false,
  namespaces,
  runAsUsername: '',
  supplementalGroups: [],
  supplementalGroupsPolicy: 'merge',
  readonlyRootfs: false,
  noNewPrivs: false,
  maskedPaths: ['/proc/kcore'],
  readonlyPaths: ['/proc/sys'],
}

const config: ContainerConfig = {
  metadata: { name: 'web', attempt: 0 },
  image: 'busybox',
  userSpecifiedImage: 'busybox',
  command: ['sleep', '60'],
  args: [],
  workingDir: '',
  envs: [],
  mounts: [],
  devices: [],
  cdiDevices: [],
  labels: dict(),
  annotations: dict(),
  logPath: 'web/0.log',
  stdin: false,
  stdinOnce: false,
  tty: false,
  security,
  stopSignal: '',
}

const pod: PodConfig = {
  metadata: { name: 'pod', uid: 'uid-1', namespace: 'default', attempt: 0 },
  hostname: 'pod',
  logDirectory: '/var/log/pods/x',
  portMappings: [],
  labels: dict(),
  annotations: dict(),
  cgroupParent: '',
  sysctls: dict(),
  namespaces,
  privileged: false,
  readonlyRootfs: false,
  supplementalGroups: [],
  supplementalGroupsPolicy: 'merge',
}

const unset: LinuxResources = {
  cpuPeriod: 0,
  cpuQuota: 0,
  cpuShares: 0,
  memoryLimit: 0,
  memorySwapLimit: 0,
  oomScoreAdj: 0,
  cpusetCpus: '',
  cpusetMems: '',
  hugepageLimits: [],
  unified: {},
}

export function someResources(set: Partial<LinuxResources>): LinuxResources {
  return { ...unset, ...set }
}

let profile: SeccompRules | undefined

/** conf/seccomp.json */
export function defaultSeccomp(): SeccompRules {
  const file = join(import.meta.dirname, '../../conf/seccomp.json')
  profile ??= parseSeccompProfile(readFileSync(file, 'utf8'), file)
  return profile
}

export type SpecChanges = {
  readonly config?: Partial<ContainerConfig>
  readonly security?: Partial<ContainerSecurity>
  readonly namespaces?: Partial<NamespaceOptions>
  readonly pod?: Partial<PodConfig>
  readonly input?: Partial<SpecInput>
  readonly host?: Partial<SpecInput['host']>
  readonly image?: Partial<SpecInput['image']>
  readonly defaults?: Partial<SpecInput['defaults']>
}

/** An ordinary container on a node where everything is to be had, but for what is changed. */
export function specInput(changes: SpecChanges = {}): SpecInput {
  const modes = { ...namespaces, ...changes.namespaces }
  return {
    containerId: 'c'.repeat(64),
    config: {
      ...config,
      ...changes.config,
      security: { ...security, namespaces: modes, ...changes.security },
    },
    podId: 'a'.repeat(64),
    pod: { ...pod, ...changes.pod },
    hostname: 'pod',
    image: {
      os: 'linux',
      architecture: 'amd64',
      user: '',
      env: ['PATH=/bin'],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      volumes: [],
      stopSignal: '',
      labels: {},
      diffIds: [],
      ...changes.image,
    },
    imageName: 'docker.io/library/busybox:latest',
    rootfs: '/rootfs',
    podPaths: {
      netns: '/pins/net',
      ipcns: '/pins/ipc',
      utsns: '/pins/uts',
      shmPath: '/pod/shm',
      resolvConfPath: '/pod/resolv.conf',
      hostnamePath: '/pod/hostname',
    },
    user: { uid: 0, gid: 0, supplementalGroups: [0], home: '/root' },
    host: {
      capabilities: CAPABILITIES,
      oomScoreAdj: 0,
      hardLimit: () => 2n ** 64n - 1n,
      cgroupVersion: 2,
      swapAccounting: true,
      hugepageSizes: ['2MB', '1GB'],
      apparmor: true,
      seccomp: true,
      arch: 'amd64',
      x32: false,
      kernel: '6.1.0-18-amd64',
      devices: [],
      ...changes.host,
    },
    defaults: {
      capabilities: ['CHOWN', 'KILL', 'AUDIT_WRITE'],
      rlimits: [],
      pidsLimit: -1,
      env: [],
      seccomp: defaultSeccomp(),
      apparmorProfile: 'berth-default',
      allowedAnnotations: [],
      ...changes.defaults,
    },
    features: { recursiveReadOnly: true, idmap: true, seccomp: true },
    cgroupsPath: '/kubepods/pod1/berth-c',
    mounts: [],
    devices: [],
    notice: () => undefined,
    ...changes.input,
  }
}
