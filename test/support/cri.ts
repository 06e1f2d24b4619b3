import { join } from 'node:path'
import { dict } from '../../src/base/dict.ts'
import { parseDigest } from '../../src/base/digest.ts'
import { notFound } from '../../src/base/errors.ts'
import type { CallLog, CallObserver } from '../../src/cri/call.ts'
import type {
  Containers,
  CriServices,
  Events,
  Images,
  NodeView,
  Pods,
  Streams,
} from '../../src/cri/services.ts'
import type { Container } from '../../src/model/container.ts'
import type { Image } from '../../src/model/image.ts'
import type { Pod } from '../../src/model/pod.ts'

export const protoDir = join(import.meta.dirname, '../../proto')

export function samplePod(changes: Partial<Pod> = {}): Pod {
  return {
    id: 'a'.repeat(64),
    config: {
      metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 2 },
      hostname: 'web',
      logDirectory: '/var/log/pods/default_web_uid-1',
      portMappings: [],
      labels: dict([['app', 'web']]),
      annotations: dict(),
      cgroupParent: '/kubepods/podx',
      sysctls: dict(),
      namespaces: { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' },
      privileged: false,
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
    },
    runtimeHandler: '',
    phase: 'ready',
    createdAt: 1_790_000_000_123_456_789n,
    bootId: 'boot',
    cgroup: '/kubepods/podx',
    networkHeld: true,
    network: { ips: ['10.85.0.2', 'fd00::2'], attachment: undefined },
    delivered: true,
    ...changes,
  }
}

export function sampleContainer(changes: Partial<Container> = {}): Container {
  const imageId = `sha256:${'1'.repeat(64)}`
  return {
    id: 'c'.repeat(64),
    podId: 'a'.repeat(64),
    config: {
      metadata: { name: 'main', attempt: 0 },
      image: imageId,
      userSpecifiedImage: 'registry.example/web:1',
      command: ['/bin/web'],
      args: [],
      workingDir: '',
      envs: [],
      mounts: [],
      devices: [],
      cdiDevices: [],
      labels: dict([
        ['io.kubernetes.container.name', 'main'],
        ['io.kubernetes.pod.name', 'web'],
        ['io.kubernetes.pod.namespace', 'default'],
        ['io.kubernetes.pod.uid', '3b7c7f2c-3c3a-4e39-a7b5-6b7c8d9e0f11'],
      ]),
      annotations: dict([
        ['io.kubernetes.container.hash', 'a1b2c3d4'],
        ['io.kubernetes.container.restartCount', '0'],
        ['io.kubernetes.container.terminationMessagePath', '/dev/termination-log'],
        ['io.kubernetes.container.terminationMessagePolicy', 'File'],
        ['io.kubernetes.pod.terminationGracePeriod', '30'],
      ]),
      logPath: 'main/0.log',
      stdin: false,
      stdinOnce: false,
      tty: false,
      security: {
        capabilities: { add: [], drop: [], addAmbient: [] },
        privileged: false,
        namespaces: { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' },
        runAsUsername: '',
        supplementalGroups: [],
        supplementalGroupsPolicy: 'merge',
        readonlyRootfs: false,
        noNewPrivs: false,
        maskedPaths: [],
        readonlyPaths: [],
      },
      stopSignal: '',
    },
    phase: 'running',
    createdAt: 1_790_000_000_123_456_789n,
    startedAt: 1_790_000_001_000_000_001n,
    imageId,
    imageRef: `registry.example/web@sha256:${'2'.repeat(64)}`,
    imageName: 'registry.example/web:1',
    imageMounts: dict(),
    logPath: '/var/log/pods/default_web_uid-1/main/0.log',
    cgroup: '/kubepods/podx/c',
    user: { uid: 1000, gid: 1000, supplementalGroups: [1000, 2000] },
    stopSignal: 'SIGTERM',
    delivered: true,
    ...changes,
  }
}

export function sampleImage(changes: Partial<Image> = {}): Image {
  return {
    id: parseDigest(`sha256:${'1'.repeat(64)}`),
    repoTags: ['registry.example/web:1'],
    repoDigests: [`registry.example/web@sha256:${'2'.repeat(64)}`],
    size: 5_000_000_000,
    pinned: false,
    config: {
      os: 'linux',
      architecture: 'amd64',
      user: '',
      env: [],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      volumes: [],
      stopSignal: '',
      labels: {},
      diffIds: [],
    },
    topLayer: undefined,
    createdAt: 1n,
    ...changes,
  }
}

const absentPods: Pods = {
  run: async () => 'a'.repeat(64),
  stop: async () => undefined,
  remove: async () => undefined,
  status: id => {
    throw notFound('pod', id)
  },
  list: () => [],
  updateResources: async () => undefined,
  verbose: () => ({}),
  stats: async id => {
    throw notFound('pod', id)
  },
  listStats: async () => [],
  metricDescriptors: () => [],
  async *metrics() {},
}

const absentContainers: Containers = {
  create: async () => 'c'.repeat(64),
  start: async () => undefined,
  stop: async () => undefined,
  remove: async () => undefined,
  status: id => {
    throw notFound('container', id)
  },
  list: () => [],
  verbose: () => ({}),
  updateResources: async () => undefined,
  reopenLog: async () => undefined,
  execSync: async () => ({ stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), exitCode: 0 }),
  stats: async id => {
    throw notFound('container', id)
  },
  listStats: async () => [],
}

const absentImages: Images = {
  pull: async () => sampleImage().id,
  list: () => [],
  status: () => undefined,
  remove: async () => undefined,
  inspect: () => undefined,
  fsUsage: () => ({ timestamp: 1n, mountpoint: '/var/lib/berth', usedBytes: 0n, inodesUsed: 0n }),
}

const noEvents: Events = {
  subscribe: () => ({
    async *[Symbol.asyncIterator]() {},
    [Symbol.dispose]() {},
  }),
}

const noStreams: Streams = {
  exec: () => 'http://127.0.0.1:1/exec/x',
  attach: () => 'http://127.0.0.1:1/attach/x',
  portForward: () => 'http://127.0.0.1:1/portforward/x',
}

const plainNode: NodeView = {
  version: '1.2.3',
  cgroupDriver: 'cgroupfs',
  features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false },
  runtimeReady: () => ({ ready: true, reason: '', message: '' }),
  network: () => ({ ready: false, reason: 'NoNetworkConfiguration', message: 'no file in /etc/cni/net.d' }),
  handlers: () => [
    { name: '', features: { recursiveReadOnly: true, userNamespaces: false } },
    { name: 'runc', features: { recursiveReadOnly: true, userNamespaces: false } },
  ],
  verboseConfig: () => ({ sandboxImage: 'none', stateDir: '/run/berth' }),
  setPodCidr: () => undefined,
}

export type FakeServices = {
  readonly pods?: Partial<Pods>
  readonly containers?: Partial<Containers>
  readonly images?: Partial<Images>
  readonly events?: Events
  readonly streams?: Streams
  readonly node?: Partial<NodeView>
}

/** Services of an empty node, with what a test gives in their place. */
export function fakeServices(given: FakeServices = {}): CriServices {
  return {
    pods: { ...absentPods, ...given.pods },
    containers: { ...absentContainers, ...given.containers },
    images: { ...absentImages, ...given.images },
    events: given.events ?? noEvents,
    streams: given.streams ?? noStreams,
    node: { ...plainNode, ...given.node },
  }
}

export type LogLine = { readonly level: string; readonly message: string } & Readonly<Record<string, unknown>>

export class RecordedCalls implements CallObserver {
  readonly lines: LogLine[] = []
  readonly metrics: string[] = []
  readonly log: CallLog = {
    debug: (fields, message) => this.#write('debug', fields, message),
    info: (fields, message) => this.#write('info', fields, message),
    warn: (fields, message) => this.#write('warn', fields, message),
    error: (fields, message) => this.#write('error', fields, message),
  }

  onCall(method: string, code: string, seconds: number): void {
    if (!(seconds >= 0)) throw new Error(`a call took ${seconds} s`)
    this.metrics.push(`${method} ${code}`)
  }

  #write(level: string, fields: Readonly<Record<string, unknown>>, message: string): void {
    this.lines.push({ ...fields, level, message })
  }
}
