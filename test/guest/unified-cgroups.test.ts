import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { failure } from '../support/cni.ts'
import { checkAndWipe } from '../support/guest/check-and-wipe.ts'
import { GuestNode } from '../support/guest/node.ts'
import { FOREVER } from '../support/kubelet.ts'
import { until } from '../support/wait.ts'

/*
 * What this repository's own machine may lack: the unified hierarchy under the cgroupfs driver, and AppArmor.
 */

let node: GuestNode

before(async () => {
  node = await GuestNode.start({
    config: '[crio.runtime.runtimes.crun]\nruntime_path = "/usr/bin/crun"\n',
  })
})
after(() => node?.[Symbol.asyncDispose]())

const PAGE = 2 << 20

test('every resource of a container is where the unified hierarchy has it', async () => {
  const pod = await node.kubelet.runPod()
  const id = await node.kubelet.run(pod, FOREVER, {
    linux: {
      resources: {
        cpu_shares: 1024,
        cpu_quota: 20_000,
        cpu_period: 50_000,
        cpuset_cpus: '0',
        cpuset_mems: '0',
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 96 << 20,
        hugepage_limits: [{ page_size: '2MB', limit: PAGE }],
        unified: { 'memory.high': `${48 << 20}`, 'memory.oom.group': '1', 'pids.max': '77' },
      },
    },
  })
  const group = `/sys/fs/cgroup${pod.config.linux?.cgroup_parent}/berth-${id}`
  const files = [
    ['cpu.weight', '39'],
    ['cpu.max', '20000 50000'],
    ['cpuset.cpus', '0'],
    ['cpuset.mems', '0'],
    ['memory.max', `${64 << 20}`],
    ['memory.swap.max', `${32 << 20}`],
    ['memory.high', `${48 << 20}`],
    ['memory.oom.group', '1'],
    ['pids.max', '77'],
    ['hugetlb.2MB.max', `${PAGE}`],
    ['hugetlb.2MB.rsvd.max', `${PAGE}`],
  ]
  const read = await node.guest.output(`cd ${group} && cat ${files.map(([name]) => name).join(' ')}`)
  assert.deepEqual(
    read.trim().split('\n'),
    files.map(([, value]) => value),
  )

  await node.client.runtime('UpdateContainerResources', {
    container_id: id,
    linux: {
      memory_limit_in_bytes: 80 << 20,
      memory_swap_limit_in_bytes: 80 << 20,
      hugepage_limits: [{ page_size: '2MB', limit: 2 * PAGE }],
      unified: { 'memory.high': 'max' },
    },
  })
  const changed = 'memory.max memory.swap.max memory.high hugetlb.2MB.max hugetlb.2MB.rsvd.max'
  const updated = await node.guest.output(`cd ${group} && cat ${changed}`)
  assert.deepEqual(updated.trim().split('\n'), [`${80 << 20}`, '0', 'max', `${2 * PAGE}`, `${2 * PAGE}`])

  const { stats } = await node.client.runtime('ContainerStats', { container_id: id })
  assert.ok(BigInt(stats?.memory?.working_set_bytes?.value ?? 0) > 0n)
  for (const psi of [stats?.cpu?.psi, stats?.memory?.psi, stats?.io?.psi]) assert.ok(psi?.Some)
  await node.kubelet.removePod(pod.id)
})

test('huge pages: what a container reserves is counted, no more than its limit, and none of other sizes', async () => {
  const names = (await node.client.runtime('ListMetricDescriptors', {})).descriptors.map(({ name }) => name)
  assert.deepEqual(
    names.filter(name => name.includes('hugetlb')),
    ['container_hugetlb_usage_bytes'],
  )
  const pod = await node.kubelet.runPod()
  const limited = (page_size: string) => ({
    linux: { resources: { hugepage_limits: [{ page_size, limit: PAGE }] } },
  })
  const id = await node.kubelet.run(pod, FOREVER, limited('2MB'))
  await node.guest.output('echo 1 > /proc/sys/vm/compact_memory; echo 2 > /proc/sys/vm/nr_hugepages')
  assert.equal(await node.readText('/proc/sys/vm/nr_hugepages'), '2\n')
  // Two pages are refused by the limit, though the node has them; one is not.
  const map = (bytes: number) => {
    const call = `\\$m = syscall(9, 0, ${bytes}, 3, 0x40022, -1, 0); die \\$! if \\$m == -1`
    return `perl -e "\\$| = 1; ${call}; print q(mapped); sleep 1000"`
  }
  const group = `/sys/fs/cgroup${pod.config.linux?.cgroup_parent}/berth-${id}`
  const within = (command: string) => `sh -c 'echo $$ > ${group}/cgroup.procs && exec ${command}'`
  assert.match(await node.guest.output(`${within(map(2 * PAGE))} 2>&1 || true`), /Cannot allocate memory/)
  await node.guest.output(`setsid ${within(map(PAGE))} > /tmp/mapped 2>&1 < /dev/null &`)
  await until('huge pages were tried', async () => (await node.readText('/tmp/mapped')) !== '')
  assert.equal(await node.readText('/tmp/mapped'), 'mapped')
  const { pod_metrics } = await node.client.runtime('ListPodSandboxMetrics', {})
  const figures = pod_metrics
    .find(({ pod_sandbox_id }) => pod_sandbox_id === pod.id)
    ?.container_metrics[0]?.metrics.filter(({ name }) => name === 'container_hugetlb_usage_bytes')
  const bySize = new Map(figures?.map(({ label_values, value }) => [label_values.at(-1), value?.value]))
  assert.equal(bySize.get('2MB'), `${PAGE}`)
  const other = node.kubelet.create(pod, FOREVER, limited('64KB'))
  await assert.rejects(other, failure('invalid', /page_size: .*this node has \(.*2MB.*\), got "64KB"/))
  await node.kubelet.removePod(pod.id)
})

test('limits of input and output by their files; a key or value that the kernel does not take is told', async () => {
  const disk = (await node.guest.output('cat /sys/block/vda/dev')).trim()
  const pod = await node.kubelet.runPod()
  const unified = (files: Record<string, string>) => ({ linux: { resources: { unified: files } } })
  for (const handler of ['', 'crun']) {
    const owner = handler === '' ? pod : await node.kubelet.runPod({}, handler)
    const id = await node.kubelet.run(owner, FOREVER, unified({ 'io.max': `${disk} rbps=1048576 wiops=120` }))
    const file = `/sys/fs/cgroup${owner.config.linux?.cgroup_parent}/berth-${id}/io.max`
    assert.equal(await node.readText(file), `${disk} rbps=1048576 wbps=max riops=max wiops=120\n`)
    const linux = unified({ 'io.max': `${disk} rbps=max wiops=60` }).linux.resources
    await node.client.runtime('UpdateContainerResources', { container_id: id, linux })
    assert.equal(await node.readText(file), `${disk} rbps=max wbps=max riops=max wiops=60\n`)
    for (const [key, value] of [
      ['io.max', 'nonsense'],
      ['io.max', `${disk} rbps=-1`],
      ['io.weight', '99999'],
      ['io.nonsense', '1'],
      ['nonsense.max', '1'],
    ] as const) {
      const created = node.kubelet.create(owner, FOREVER, unified({ [key]: value }))
      await assert.rejects(
        created,
        failure('invalid', new RegExp(`unified: .*${key.split('.', 1)[0]}`)),
        `${handler} ${key}`,
      )
      const changed = node.client.runtime('UpdateContainerResources', {
        container_id: id,
        linux: { unified: { [key]: value } },
      })
      await assert.rejects(
        changed,
        failure('invalid', new RegExp(`unified: .*${key.split('.', 1)[0]}`)),
        `${handler} ${key}`,
      )
    }
    const later = unified({ 'io.max': `${disk} wiops=30` }).linux.resources
    await node.client.runtime('UpdateContainerResources', { container_id: id, linux: later })
    assert.equal(await node.readText(file), `${disk} rbps=max wbps=max riops=max wiops=30\n`)
    await node.kubelet.removePod(owner.id)
  }
})

test('a group that is killed as one says so: the kernel took all of it', async () => {
  const pod = await node.kubelet.runPod()
  const id = await node.kubelet.run(pod, '(x=a; while :; do x=$x$x; done) & sleep 100000', {
    linux: {
      resources: {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        unified: { 'memory.oom.group': '1' },
      },
    },
  })
  const { exit_code, reason } = await node.kubelet.exited(id)
  assert.deepEqual([exit_code, reason], [137, 'OOMKilled'])
  await node.kubelet.removePod(pod.id)
})

const PROFILE = `profile guest-no-write flags=(attach_disconnected,mediate_deleted) {
  capability, network, file, mount, umount, signal, ptrace, pivot_root,
  deny /tmp/** w,
}
`

test('an AppArmor profile of the node confines a container, and one that is not loaded is an error', async () => {
  await node.guest.write('/tmp/profile', PROFILE)
  await node.guest.output('apparmor_parser --replace --skip-cache /tmp/profile')
  const pod = await node.kubelet.runPod()
  const under = (localhost_ref: string) => ({
    linux: { security_context: { apparmor: { profile_type: 'Localhost' as const, localhost_ref } } },
  })
  const script =
    'exec 2>/dev/null; cat /proc/self/attr/current; echo x >/tmp/x || echo refused; echo x >/x && echo written'
  const said = await node.kubelet.outputOf(pod, script, under('guest-no-write'))
  assert.match(said, /^guest-no-write \(enforce\)/)
  assert.match(said, /refused\nwritten$/)
  await assert.rejects(node.kubelet.run(pod, FOREVER, under('guest-none')), /apparmor.*"guest-none"/)
  await node.kubelet.removePod(pod.id)
})

test("the runtime's default AppArmor profile is Berth's own, and holds where capabilities were added", async () => {
  const pod = await node.kubelet.runPod()
  const script = [
    'exec 2>/dev/null',
    'cat /proc/self/attr/current',
    'mount -t tmpfs none /tmp || echo no mount',
    'echo 1 >/proc/sys/vm/drop_caches || echo no sysctl',
    'cat /sys/firmware/acpi/tables/DSDT >/dev/null || echo no firmware',
    'echo x >/tmp/x && kill -0 1 && echo as usual',
  ].join('; ')
  const loosened = { capabilities: { add_capabilities: ['SYS_ADMIN'] }, masked_paths: [], readonly_paths: [] }
  const said = await node.kubelet.outputOf(pod, script, { linux: { security_context: loosened } })
  assert.match(said, /^berth-default \(enforce\)\n/)
  assert.match(said, /no mount\nno sysctl\nno firmware\nas usual$/)
  const unconfined = { apparmor: { profile_type: 'Unconfined' as const } }
  const free = await node.kubelet.outputOf(pod, 'cat /proc/self/attr/current', {
    linux: { security_context: unconfined },
  })
  assert.match(free, /^unconfined/)
  await node.kubelet.removePod(pod.id)
})

test('a user namespace maps a pod under a runtime that can', async () => {
  const { runtime_handlers } = await node.client.runtime('Status', {})
  const crun = runtime_handlers.find(({ name }) => name === 'crun')
  assert.equal(crun?.features?.user_namespaces, true)
  const ids = { container_id: 0, host_id: 200_000, length: 65_536 }
  const userns_options = { mode: 'POD' as const, uids: [ids], gids: [ids] }
  const security_context = { namespace_options: { pid: 'CONTAINER' as const, userns_options } }
  const pod = await node.kubelet.runPod({ linux: { security_context } }, 'crun')
  const said = await node.kubelet.outputOf(pod, 'id -u; cat /proc/self/uid_map; stat -c %u /bin/sh')
  assert.match(said, /^0\n +0 +200000 +65536\n0$/)
  await node.kubelet.removePod(pod.id)
})

test('berth check names and repairs what differs, and berth wipe leaves nothing', async () => {
  const ids = { container_id: 0, host_id: 300_000, length: 65_536 }
  const userns_options = { mode: 'POD' as const, uids: [ids], gids: [ids] }
  const mapped = { namespace_options: { pid: 'CONTAINER' as const, userns_options } }
  const all = async () => [
    await node.kubelet.runPod(),
    await node.kubelet.runPodWith({ pid: 'POD' }),
    await node.kubelet.runPod({ linux: { security_context: mapped } }, 'crun'),
  ]
  await checkAndWipe(node, all, {
    make: async (id, parent) => {
      await node.guest.output(`mkdir /sys/fs/cgroup${parent}/berth-${id}`)
    },
  })
})
