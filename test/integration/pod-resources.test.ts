import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { LinuxContainerResources } from '../../src/cri/generated/runtime/v1/LinuxContainerResources.ts'
import { openCgroups } from '../../src/os/cgroup/open-cgroups.ts'
import { failure } from '../support/cni.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const kubelet = useDaemon({ config: () => '[crio.runtime]\npids_limit = 50\n' })

const cgroups = openCgroups()

const MIB = 2 ** 20

type Update = { resources?: LinuxContainerResources; overhead?: LinuxContainerResources }

async function update(pod: TestPod, change: Update): Promise<void> {
  await kubelet().daemon.client.runtime('UpdatePodSandboxResources', { pod_sandbox_id: pod.id, ...change })
}

function groupOf(pod: TestPod): string {
  return pod.config.linux?.cgroup_parent || `${kubelet().daemon.cgroup}/pod${pod.id}`
}

function limitsOf(pod: TestPod) {
  const { memoryLimit, cpuShares, cpuQuota, cpuPeriod } = cgroups.applied(groupOf(pod))
  return { memoryLimit, cpuShares, cpuQuota, cpuPeriod }
}

const ownGroup = { cgroup_parent: '', security_context: { namespace_options: { pid: 'CONTAINER' } } } as const

test('the limits of a pod and its overhead are those of its group; later ones too', async () => {
  const resources = {
    memory_limit_in_bytes: 200 * MIB,
    cpu_quota: 50_000,
    cpu_period: 100_000,
    cpu_shares: 512,
  }
  const overhead = { memory_limit_in_bytes: 56 * MIB, cpu_shares: 100 }
  const pod = await kubelet().runPod({ linux: { ...ownGroup, resources, overhead } })
  const first = { memoryLimit: 256 * MIB, cpuShares: 612, cpuQuota: 50_000, cpuPeriod: 100_000 }
  assert.deepEqual(limitsOf(pod), first)
  await update(pod, { resources: { memory_limit_in_bytes: 400 * MIB, cpu_quota: 80_000 } })
  const second = { ...first, memoryLimit: 456 * MIB, cpuQuota: 80_000 }
  assert.deepEqual(limitsOf(pod), second, 'what is not mentioned stays')
  await kubelet().daemon.restart()
  await update(pod, { overhead: { memory_limit_in_bytes: 100 * MIB } })
  assert.deepEqual(limitsOf(pod), { ...second, memoryLimit: 500 * MIB }, 'also over a restart')
  const id = await kubelet().create(pod, FOREVER)
  const { info } = await kubelet().daemon.client.runtime('ContainerStatus', {
    container_id: id,
    verbose: true,
  })
  const { annotations } = JSON.parse(info.info ?? '{}').runtimeSpec
  assert.equal(annotations['io.kubernetes.cri.sandbox-memory'], String(400 * MIB))
  assert.equal(annotations['io.kubernetes.cri.sandbox-cpu-quota'], '80000')
})

test("a group that is named after the pod is the pod's, another one is left alone", async () => {
  const pod = await kubelet().runPod()
  await kubelet().run(pod, FOREVER)
  await update(pod, { resources: { memory_limit_in_bytes: 300 * MIB } })
  assert.equal(limitsOf(pod).memoryLimit, 300 * MIB)
  const shared = `${kubelet().daemon.cgroup}/shared`
  await cgroups.create(shared)
  const guest = await kubelet().runPod({ linux: { ...ownGroup, cgroup_parent: shared } })
  const before = limitsOf(guest)
  await update(guest, { resources: { memory_limit_in_bytes: 300 * MIB } })
  assert.deepEqual(limitsOf(guest), before)
})

test('a size that is not possible is refused, and changes nothing', async () => {
  const pod = await kubelet().runPod({
    linux: { ...ownGroup, resources: { memory_limit_in_bytes: 200 * MIB } },
  })
  // Memory that the kernel cannot take back.
  const id = await kubelet().run(pod, `head -c 60m /dev/zero > /dev/shm/x; echo full; ${FOREVER}`)
  await kubelet().prints(id, 'full')
  const before = limitsOf(pod)
  await assert.rejects(
    update(pod, { resources: { memory_limit_in_bytes: 4 * MIB, cpu_shares: 77 } }),
    failure('precondition', /the limits of pod .* cannot be changed/),
  )
  assert.deepEqual(limitsOf(pod), before)
  await assert.rejects(
    update(pod, { resources: { cpu_quota: 5 } }),
    failure('invalid', /resources\.cpu_quota/),
  )
  await assert.rejects(
    update(pod, { resources: { memory_limit_in_bytes: 300 * MIB, memory_swap_limit_in_bytes: 100 * MIB } }),
    failure('invalid', /memory_swap_limit_in_bytes: .*at least/),
  )
  await kubelet().stopPod(pod.id)
  await assert.rejects(update(pod, { resources: { cpu_shares: 7 } }), failure('precondition', /not ready/))
  await assert.rejects(
    kubelet().daemon.client.runtime('UpdatePodSandboxResources', { pod_sandbox_id: 'missing' }),
    failure('not-found'),
  )
})

test('the configured number of processes is a limit of every container', async () => {
  const pod = await kubelet().runPod()
  const id = await kubelet().create(pod, FOREVER)
  assert.equal(cgroups.applied(`${groupOf(pod)}/berth-${id}`).pidsLimit, 50)
})

test('huge pages are left to nodes that count them; files of cgroup v2 to nodes that have it', async () => {
  const pod = await kubelet().runPod()
  const pages = { hugepage_limits: [{ page_size: '2MB', limit: 4 * MIB }] }
  const id = await kubelet().run(pod, FOREVER, { linux: { resources: pages } })
  const more = { hugepage_limits: [{ page_size: '2MB', limit: 6 * MIB }] }
  const group = `/sys/fs/cgroup/hugetlb${groupOf(pod)}/berth-${id}`
  const limits = () =>
    readdirSync(group)
      .filter(name => /^hugetlb\.2MB\.(rsvd\.)?limit_in_bytes$/.test(name))
      .map(name => Number(readFileSync(join(group, name), 'utf8')))
  const has = existsSync('/sys/fs/cgroup/hugetlb/cgroup.procs')
  if (has) assert.equal(limits()[0], 4 * MIB)
  await kubelet().daemon.client.runtime('UpdateContainerResources', { container_id: id, linux: more })
  if (has) assert.deepEqual(new Set(limits()), new Set([6 * MIB]))
  const { container_metrics } = (
    await kubelet().daemon.client.runtime('ListPodSandboxMetrics', {})
  ).pod_metrics.find(({ pod_sandbox_id }) => pod_sandbox_id === pod.id)!
  const pagesOf = (name: string) =>
    container_metrics[0]?.metrics.filter(metric => metric.name === name).map(one => one.label_values.at(-1))
  const counted = pagesOf('container_hugetlb_usage_bytes')
  if (cgroups.version === 1) {
    assert.equal(counted?.includes('2MB'), has)
    assert.deepEqual(pagesOf('container_hugetlb_max_usage_bytes'), counted)
  }
  const create = kubelet().create(pod, FOREVER, {
    linux: { resources: { unified: { 'memory.high': '8388608' } } },
  })
  if (cgroups.version === 1) await assert.rejects(create, failure('invalid', /unified: needs cgroup v2/))
  else
    assert.equal(
      readFileSync(`/sys/fs/cgroup${groupOf(pod)}/berth-${await create}/memory.high`, 'utf8'),
      '8388608\n',
    )
})

/** Stops everything in a control group until it is told to go on. */
function freeze(path: string): void {
  if (cgroups.version === 2) writeFileSync(`/sys/fs/cgroup${path}/cgroup.freeze`, '1')
  else writeFileSync(`/sys/fs/cgroup/freezer${path}/freezer.state`, 'FROZEN')
}

test('stopping a container that is frozen, with a grace period and without', async () => {
  const pod = await kubelet().runPod()
  for (const grace of [1, 0]) {
    const id = await kubelet().run(pod, `echo up; ${FOREVER}`)
    await kubelet().prints(id, 'up')
    freeze(`${groupOf(pod)}/berth-${id}`)
    await kubelet().stop(id, grace)
    const { state, exit_code } = await kubelet().status(id)
    assert.deepEqual([state, exit_code], ['CONTAINER_EXITED', 137])
  }
})

test('stopping a container whose children nobody reaped, and one whose first process left others', async () => {
  const pod = await kubelet().runPod()
  // The shell becomes a program that never asks for its children: they stay as zombies.
  const zombies = await kubelet().run(pod, `for i in 1 2 3; do true & done; exec ${FOREVER}`)
  await until('there are zombies', async () =>
    /\) Z /.test((await kubelet().exec(zombies, 'cat /proc/[0-9]*/stat')).stdout),
  )
  await kubelet().stop(zombies, 1)
  assert.equal((await kubelet().status(zombies)).exit_code, 137)
  const shared = await kubelet().runPodWith({ pid: 'POD' })
  const id = await kubelet().run(shared, 'setsid sleep 100013 & exit 3')
  assert.equal((await kubelet().exited(id)).exit_code, 3)
  await until('what it left is gone', () => cgroups.pids(`${groupOf(shared)}/berth-${id}`).length === 0)
})

test('a profile of a security module that the node lacks is refused by its field', async () => {
  const pod = await kubelet().runPod()
  const refused = async (security_context: object, message: RegExp) =>
    assert.rejects(
      kubelet().create(pod, FOREVER, { linux: { security_context } }),
      failure('precondition', message),
    )
  if (!existsSync('/sys/kernel/security/apparmor/profiles')) {
    const local = { profile_type: 'Localhost', localhost_ref: 'mine' } as const
    await refused(
      { apparmor: local },
      /security_context\.apparmor: profile "mine": this kernel has no AppArmor/,
    )
    await refused({ apparmor_profile: 'localhost/mine' }, /this kernel has no AppArmor/)
    const plain = { apparmor: { profile_type: 'RuntimeDefault' } } as const
    assert.equal(await kubelet().outputOf(pod, 'echo runs', { linux: { security_context: plain } }), 'runs')
  }
  const selinux_options = { user: 'u', role: 'r', type: 'a:b', level: '' }
  await assert.rejects(
    kubelet().create(pod, FOREVER, { linux: { security_context: { selinux_options } } }),
    failure('invalid', /selinux_options\.type/),
  )
})
