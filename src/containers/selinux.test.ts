import assert from 'node:assert/strict'
import { test } from 'node:test'
import { specInput } from '../../test/support/spec-input.ts'
import type { Pod, PodConfig } from '../model/pod.ts'
import type { SelinuxOptions } from '../model/security.ts'
import { containerLabels, levelsInUse, pickLevel, podLabels, relabelMounts, type Selinux } from './selinux.ts'

const POLICY = { process: 'system_u:system_r:container_t:s0', file: 'system_u:object_r:container_file_t:s0' }
const SELINUX: Selinux = {
  policy: POLICY,
  isValid: context => /^[^:]+:[^:]+:[^:]+_t(:s0(-s0)?(:c[0-9]+([,.]c[0-9]+)*)?)?$/.test(context),
  freeHostNetwork: true,
  ownDirectories: ['/var/lib/berth'],
}
const PAIRS = (1024 * 1023) / 2
const NOTHING: SelinuxOptions = { user: '', role: '', type: '', level: '' }

function podOf(config: Partial<PodConfig> = {}, selinuxLevel: string | undefined = 's0:c1,c2'): Pod {
  return {
    id: 'a'.repeat(64),
    config: { ...specInput().pod, ...config },
    runtimeHandler: '',
    phase: 'ready',
    createdAt: 0n,
    bootId: '',
    cgroup: '/x',
    networkHeld: false,
    network: { ips: [] },
    delivered: true,
    ...(selinuxLevel === undefined ? {} : { selinuxLevel }),
  }
}

function containerOf(selinux?: Partial<SelinuxOptions>, privileged = false) {
  const { config } = specInput({
    security: { privileged, ...(selinux === undefined ? {} : { selinux: { ...NOTHING, ...selinux } }) },
  })
  return config
}

const mount = (level: string, user = 'system_u') => `${user}:object_r:container_file_t:${level}`

test('every number below the count of pairs is another pair of categories, the lower one first', () => {
  const pairs = new Set<string>()
  for (let index = 0; index < 28; index++) pairs.add(pickLevel(POLICY, [], () => index, 8))
  assert.equal(pairs.size, 28)
  const first = Array.from({ length: 500 }, (_, index) => index)
  for (const index of [...first, ...first.map(step => step * 1047), ...first.map(back => PAIRS - 1 - back)]) {
    const level = pickLevel(POLICY, [], () => index)
    const [, low, high] = /^s0:c(\d+),c(\d+)$/.exec(level)!.map(Number)
    assert.ok(low! < high! && high! < 1024, level)
    assert.equal((high! * (high! - 1)) / 2 + low!, index)
  }
})

test('a level that is in use is never given, whoever named it and in whatever order', () => {
  assert.equal(
    pickLevel(POLICY, [], () => 0),
    's0:c0,c1',
  )
  assert.equal(
    pickLevel(POLICY, ['s0:c0,c1'], () => 0),
    's0:c0,c2',
  )
  assert.equal(
    pickLevel(POLICY, ['s0:c1,c0', 's0-s0:c0,c2'], () => 0),
    's0:c1,c2',
  )
  const pods = [podOf({}, 's0:c0,c1'), podOf({ selinux: { ...NOTHING, level: 's0:c2,c0' } }, 's0:c1,c2')]
  const containers = [{ config: containerOf({ level: 's0:c0,c3' }) }, { config: containerOf() }]
  assert.equal(
    pickLevel(POLICY, levelsInUse(pods, containers), () => 0),
    's0:c1,c3',
  )
  // The last pair is in use: the search begins anew.
  assert.equal(
    pickLevel(POLICY, ['s0:c1022,c1023'], () => PAIRS - 1),
    's0:c0,c1',
  )
})

test('a thousand pods have a thousand levels; when none is left that is an error', () => {
  const taken = new Set<string>()
  for (let n = 0; n < 1000; n++) taken.add(pickLevel(POLICY, taken))
  assert.equal(taken.size, 1000)
  const few = new Set<string>()
  for (let n = 0; n < 28; n++) few.add(pickLevel(POLICY, few, undefined, 8))
  assert.equal(few.size, 28)
  assert.throws(() => pickLevel(POLICY, few, undefined, 8), { code: 'exhausted' })
})

test('a policy without levels has none to give', () => {
  assert.equal(pickLevel({ ...POLICY, process: 'system_u:system_r:container_t' }, []), '')
})

test('the labels of a pod are those of its containers; what is asked for goes before the usual', () => {
  const pod = podOf()
  const usual = { process: 'system_u:system_r:container_t:s0:c1,c2', mount: mount('s0:c1,c2') }
  assert.deepEqual(podLabels(SELINUX, pod), usual)
  assert.deepEqual(containerLabels(SELINUX, pod, containerOf()), usual)
  assert.deepEqual(containerLabels(SELINUX, pod, containerOf({ type: 'web_t' })), {
    process: 'system_u:system_r:web_t:s0:c1,c2',
    mount: mount('s0:c1,c2'),
  })
  const asked = podOf({ selinux: { ...NOTHING, user: 'pod_u', level: 's0:c7,c8' } })
  assert.deepEqual(containerLabels(SELINUX, asked, containerOf({ type: 'web_t', role: 'r_r' })), {
    process: 'pod_u:r_r:web_t:s0:c7,c8',
    mount: mount('s0:c7,c8', 'pod_u'),
  })
  assert.deepEqual(containerLabels(SELINUX, asked, containerOf({ level: 's0' })), {
    process: 'pod_u:system_r:container_t:s0',
    mount: mount('s0', 'pod_u'),
  })
})

test('what cannot be separated from the node runs unconfined, on mounts with its pod’s categories', () => {
  const free = { process: 'system_u:system_r:spc_t:s0', mount: mount('s0:c1,c2') }
  assert.deepEqual(containerLabels(SELINUX, podOf({ privileged: true }), containerOf(undefined, true)), free)
  const confined = containerLabels(SELINUX, podOf({ privileged: true }), containerOf())
  assert.equal(confined?.process, 'system_u:system_r:container_t:s0:c1,c2')
  const { namespaces } = specInput().pod
  for (const kind of ['pid', 'ipc', 'network'] as const) {
    const pod = podOf({ namespaces: { ...namespaces, [kind]: 'node' } })
    assert.deepEqual(containerLabels(SELINUX, pod, containerOf()), free, kind)
    assert.deepEqual(podLabels(SELINUX, pod), free, kind)
  }
  const hostNetwork = podOf({ namespaces: { ...namespaces, network: 'node' } })
  const strict = containerLabels({ ...SELINUX, freeHostNetwork: false }, hostNetwork, containerOf())
  assert.equal(strict?.process, 'system_u:system_r:container_t:s0:c1,c2')
  const unknown = { ...SELINUX, isValid: (context: string) => !context.includes('spc_t') }
  assert.equal(containerLabels(unknown, podOf(), containerOf(undefined, true))?.process, '')
})

test('what the policy does not know is refused by its field, for privileged containers too', () => {
  for (const privileged of [false, true]) {
    assert.throws(() => containerLabels(SELINUX, podOf(), containerOf({ level: 's0,c4,c5' }, privileged)), {
      code: 'invalid',
      message: /selinux_options: "system_u:system_r:container_t:s0,c4,c5" is no context/,
    })
  }
  assert.throws(() => podLabels(SELINUX, podOf({ selinux: { ...NOTHING, type: 'x' } })), /is no context/)
})

test('without SELinux there are no labels, whatever is asked for; a pod that was made without it has none later', () => {
  assert.equal(containerLabels(undefined, podOf(), containerOf({ type: 'x' })), undefined)
  assert.equal(podLabels(SELINUX, { ...podOf(), selinuxLevel: undefined } as unknown as Pod), undefined)
})

test('CVE-2021-43816: the files of the node are relabelled for nobody', async () => {
  const mounts = [{ field: 'config.mounts[3]', source: '/etc/hosts' }]
  await assert.rejects(relabelMounts(SELINUX, podOf(), mounts, mount('s0')), {
    code: 'invalid',
    message: /config\.mounts\[3\]\.selinux_relabel: "\/etc\/hosts" belongs to the node/,
  })
})
