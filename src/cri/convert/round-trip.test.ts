import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { sampleContainer, samplePod } from '../../../test/support/cri.ts'
import { wire } from '../../../test/support/cri-wire.ts'
import { dict } from '../../base/dict.ts'
import type { Mount } from '../../model/container.ts'
import type { NamespaceOptions } from '../../model/pod.ts'
import type { LinuxResources } from '../../model/security.ts'
import { toContainerConfig } from './container-config.ts'
import { fromContainerStatus } from './containers.ts'
import { toMount } from './mounts.ts'
import { toPodConfig } from './pod-config.ts'
import { fromPodStatus } from './pods.ts'
import { fromResources, toResources } from './resources.ts'
import { fromNamespaces, toNamespaces } from './security.ts'
import { fromSignal, toSignal } from './signals.ts'

/*
 * What a client asks for is what it reads again in a status, through the bytes of the wire in both directions.
 */

const text = fc.string({ unit: 'grapheme' })
const key = fc.oneof(text, fc.constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty'))
const textDict = fc.array(fc.tuple(key, text)).map(dict)
const plain = fc.stringMatching(/^[a-z0-9._-]{1,20}$/).filter(part => part !== '..' && part !== '.')
const absolute = fc.array(plain, { minLength: 1, maxLength: 4 }).map(parts => `/${parts.join('/')}`)
/** Ordinary objects, as the model has them. */
const record = <T>(members: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(members, { noNullPrototype: true })
const count = (min: number) => fc.integer({ min, max: Number.MAX_SAFE_INTEGER })

const idMapping = record({
  containerId: fc.integer({ min: 0, max: 2 ** 31 }),
  hostId: fc.integer({ min: 0, max: 2 ** 31 }),
  length: fc.integer({ min: 1, max: 2 ** 31 }),
})

const resources: fc.Arbitrary<LinuxResources> = record({
  cpuPeriod: fc.oneof(fc.constant(0), fc.integer({ min: 1000, max: 1_000_000 })),
  cpuQuota: fc.oneof(fc.constantFrom(-1, 0), count(1000)),
  cpuShares: count(0),
  memoryLimit: count(-1),
  memorySwapLimit: count(-1),
  oomScoreAdj: fc.integer({ min: -1000, max: 1000 }),
  cpusetCpus: fc.constantFrom('', '0', '0-3', '0,2-5,7'),
  cpusetMems: fc.constantFrom('', '0', '0-1'),
  hugepageLimits: fc.array(record({ pageSize: fc.constantFrom('2MB', '1GB', '64KB'), limit: count(0) })),
  unified: fc
    .dictionary(fc.constantFrom('memory.high', 'io.weight', 'hugetlb.2MB.max'), plain)
    .map(entries => dict(entries)),
})

const rootMapping = idMapping.map(mapping => ({ ...mapping, containerId: 0 }))
const namespaces: fc.Arbitrary<NamespaceOptions> = record({
  network: fc.constantFrom('pod' as const, 'node' as const),
  pid: fc.constantFrom('pod' as const, 'container' as const, 'node' as const, 'target' as const),
  ipc: fc.constantFrom('pod' as const, 'node' as const),
  targetId: plain,
  user: fc.option(
    fc.oneof(
      fc.constant({ mode: 'node' as const, uids: [], gids: [] }),
      fc
        .tuple(rootMapping, rootMapping)
        .map(([uid, gid]) => ({ mode: 'pod' as const, uids: [uid], gids: [gid] })),
    ),
    { nil: undefined },
  ),
}).map(({ user, ...options }) => (user === undefined ? options : { ...options, user }))

const mounts: fc.Arbitrary<Mount> = fc.oneof(
  record({
    containerPath: absolute,
    hostPath: absolute,
    readonly: fc.boolean(),
    recursiveReadOnly: fc.constant(false),
    selinuxRelabel: fc.boolean(),
    propagation: fc.constantFrom('private' as const, 'rslave' as const, 'rshared' as const),
    uidMappings: fc.array(idMapping, { maxLength: 3 }),
    gidMappings: fc.array(idMapping, { maxLength: 3 }),
  }),
  record({
    containerPath: absolute,
    hostPath: fc.constant(''),
    image: record({ ref: plain, subPath: fc.oneof(fc.constant(''), plain) }),
    readonly: fc.constant(true),
    recursiveReadOnly: fc.boolean(),
    selinuxRelabel: fc.boolean(),
    propagation: fc.constant('private' as const),
    uidMappings: fc.constant([]),
    gidMappings: fc.constant([]),
  }),
)

const RUNS = { numRuns: 60 }

function throughStatus(container: ReturnType<typeof sampleContainer>) {
  return wire.containerStatus({ status: fromContainerStatus({ container, state: 'running' }) }).status!
}

test('resources', () => {
  fc.assert(
    fc.property(resources, limits => {
      const status = throughStatus(sampleContainer({ resources: limits }))
      assert.deepEqual(toResources('linux', status.resources!.linux), limits)
    }),
    RUNS,
  )
})

test('"no limit" in 64 bits becomes the greatest number', () => {
  const wireLimits = { memory_limit_in_bytes: '9223372036854775807', hugepage_limits: [] }
  const { config } = wire.createContainer({ config: { linux: { resources: wireLimits } } })
  const limits = toResources('linux', config!.linux!.resources)!
  assert.equal(limits.memoryLimit, Number.MAX_SAFE_INTEGER)
  assert.equal(fromResources(limits).memory_limit_in_bytes, Number.MAX_SAFE_INTEGER)
})

test('namespaces, with the ids of a user namespace', () => {
  fc.assert(
    fc.property(namespaces, options => {
      const config = { linux: { security_context: { namespace_options: fromNamespaces(options) } } }
      const decoded = wire.runPod({ config }).config!.linux!.security_context!.namespace_options
      assert.deepEqual(toNamespaces('options', decoded), options)
    }),
    RUNS,
  )
})

test('mounts, and the id of the image behind one', () => {
  fc.assert(
    fc.property(fc.array(mounts, { maxLength: 4 }), requested => {
      const container = sampleContainer()
      const status = throughStatus({
        ...container,
        config: { ...container.config, mounts: requested },
        imageMounts: dict(requested.map(mount => [mount.containerPath, 'sha256:1'] as const)),
      })
      assert.deepEqual(
        status.mounts.map(mount => toMount('mount', mount)),
        requested,
      )
      for (const mount of status.mounts) assert.equal(mount.image?.image_ref ?? 'sha256:1', 'sha256:1')
    }),
    RUNS,
  )
})

test('labels and annotations with any key', () => {
  fc.assert(
    fc.property(textDict, textDict, (labels, annotations) => {
      const metadata = { name: 'n', uid: 'u', namespace: 'd' }
      const pod = toPodConfig(
        'config',
        wire.runPod({ config: { metadata, labels, annotations } }).config,
        'cgroupfs',
      )
      assert.deepEqual([pod.labels, pod.annotations], [labels, annotations])
      const image = { image: 'i' }
      const { config } = wire.createContainer({
        config: { metadata: { name: 'n' }, image, labels, annotations },
      })
      const container = sampleContainer({ config: toContainerConfig('config', config) })
      const status = throughStatus(container)
      assert.deepEqual([dict(status.labels), dict(status.annotations)], [labels, annotations])
      const shown = fromPodStatus(samplePod({ config: pod }), 'ready')
      assert.deepEqual([shown.labels, shown.annotations], [labels, annotations])
    }),
    RUNS,
  )
})

test('signals: every name of the interface, the second names as the first', () => {
  const names =
    `RUNTIME_DEFAULT SIGABRT SIGALRM SIGBUS SIGCHLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGKILL SIGPIPE
    SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1
    SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMINPLUS1 SIGRTMINPLUS15 SIGRTMAXMINUS14 SIGRTMAXMINUS1
    SIGRTMAX`.split(/\s+/)
  for (const name of names) assert.equal(fromSignal(toSignal('stop_signal', name as never)), name)
  assert.equal(toSignal('stop_signal', 'RUNTIME_DEFAULT'), '')
  assert.equal(toSignal('stop_signal', 'SIGRTMAXMINUS14'), 'SIGRTMAX-14')
  assert.equal(toSignal('stop_signal', 'SIGCLD'), 'SIGCHLD')
  assert.equal(toSignal('stop_signal', 'SIGIOT'), 'SIGABRT')
  assert.equal(toSignal('stop_signal', 'SIGPOLL'), 'SIGIO')
  assert.equal(fromSignal('SIGNONSENSE'), 'RUNTIME_DEFAULT')
})

test('every signal of the interface has a name', () => {
  const { config } = wire.createContainer({ config: {} })
  assert.equal(config?.stop_signal, 'RUNTIME_DEFAULT')
  for (let number = 1; number <= 65; number++) {
    const sent = wire.createContainer({ config: { stop_signal: number as 0 } }).config!.stop_signal
    assert.match(toSignal('stop_signal', sent), /^SIG[A-Z0-9]+([+-][0-9]+)?$/, `number ${number}`)
  }
})
