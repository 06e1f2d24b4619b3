import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { GuestNode } from '../support/guest/node.ts'
import { FOREVER } from '../support/kubelet.ts'

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
      unified: { 'memory.high': 'max' },
    },
  })
  const updated = await node.guest.output(`cd ${group} && cat memory.max memory.swap.max memory.high`)
  assert.deepEqual(updated.trim().split('\n'), [`${80 << 20}`, '0', 'max'])

  const { stats } = await node.client.runtime('ContainerStats', { container_id: id })
  assert.ok(BigInt(stats?.memory?.working_set_bytes?.value ?? 0) > 0n)
  for (const psi of [stats?.cpu?.psi, stats?.memory?.psi, stats?.io?.psi]) assert.ok(psi?.Some)
  await node.kubelet.removePod(pod.id)
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
