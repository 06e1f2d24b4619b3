import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { leftoversOf } from '../../support/guest/leftovers.ts'
import { GuestNode } from '../../support/guest/node.ts'
import { FOREVER, type TestPod } from '../../support/kubelet.ts'

/*
 * The cgroup driver systemd when somebody else tells systemd what to do with the units: scopes and slices are stopped
 * or killed, systemd is reloaded and started anew, the bus is gone. States stay true, and removal leaves no unit.
 */

/** Ends by itself when it is told to. */
const SERVER = "trap 'exit 5' TERM; echo begun; while :; do sleep 1; done"

let node: GuestNode
let serial = 0

before(async () => {
  node = await GuestNode.start({ config: '[crio.runtime]\ncgroup_manager = "systemd"\n' })
})
afterEach(async t => {
  if (!(t as unknown as { passed: boolean }).passed) console.log(await node.log())
  const { items } = await node.client.runtime('ListPodSandbox', {})
  for (const { id } of items) await node.kubelet.removePod(id)
  assert.deepEqual(await leftoversOf(node.guest), [])
})
after(() => node?.[Symbol.asyncDispose]())

async function runPod(pid: 'CONTAINER' | 'POD' = 'CONTAINER'): Promise<{ pod: TestPod; slice: string }> {
  const slice = `kubepods-burstable-pod${++serial}.slice`
  const cgroup_parent = `/kubepods.slice/kubepods-burstable.slice/${slice}`
  const pod = await node.kubelet.runPod({
    linux: { cgroup_parent, security_context: { namespace_options: { pid } } },
  })
  return { pod, slice }
}

async function serve(pod: TestPod): Promise<string> {
  const id = await node.kubelet.run(pod, SERVER)
  await node.kubelet.prints(id, 'begun')
  return id
}

async function endOf(id: string): Promise<[number, string]> {
  const { exit_code, reason } = await node.kubelet.exited(id)
  return [exit_code, reason]
}

async function assertServes(id: string): Promise<void> {
  assert.equal((await node.kubelet.status(id)).state, 'CONTAINER_RUNNING')
  assert.equal((await node.kubelet.exec(id, 'echo alive')).stdout, 'alive\n')
}

test('a scope that is stopped or killed is a container that has ended so, and its pod goes on', async () => {
  const { pod } = await runPod()
  const [stopped, killed] = [await serve(pod), await serve(pod)]
  await node.guest.output(`systemctl stop berth-${stopped}.scope`)
  assert.deepEqual(await endOf(stopped), [5, 'Error'])
  await node.guest.output(`systemctl kill --signal=KILL berth-${killed}.scope`)
  assert.deepEqual(await endOf(killed), [137, 'Error'])
  assert.equal((await node.kubelet.podStatus(pod.id)).state, 'SANDBOX_READY')
  await assertServes(await serve(pod))
})

test('a container whose monitor is killed with its scope runs on, and is stopped and removed like others', async () => {
  const { pod } = await runPod()
  const id = await serve(pod)
  await node.guest.output(`systemctl kill --signal=KILL berth-conmon-${id}.scope`)
  await assertServes(id)
  await node.kubelet.stop(id, 60)
  assert.deepEqual(await endOf(id), [255, 'MonitorLost'])
})

test('a slice that is stopped takes all of its pod along, and comes back with the next container', async () => {
  const { pod, slice } = await runPod()
  const ids = [await serve(pod), await serve(pod)]
  await node.guest.output(`systemctl stop ${slice}`)
  for (const id of ids) assert.equal((await node.kubelet.exited(id)).state, 'CONTAINER_EXITED')
  const next = await serve(pod)
  await assertServes(next)
  const { pid } = await node.kubelet.containerInfo(next)
  assert.match(
    await node.guest.output(`cat /proc/${pid}/cgroup`),
    new RegExp(`/${slice}/berth-${next}.scope`),
  )

  const shared = await runPod('POD')
  const inside = await serve(shared.pod)
  await node.guest.output(`systemctl stop ${shared.slice}`)
  assert.equal((await node.kubelet.exited(inside)).state, 'CONTAINER_EXITED')
  assert.equal((await node.kubelet.podStatus(shared.pod.id)).state, 'SANDBOX_NOTREADY')
})

test('a systemd that reads its units again, or is started anew, changes nothing of a container', async () => {
  const { pod } = await runPod()
  const id = await node.kubelet.run(pod, SERVER, {
    linux: {
      resources: {
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: '0',
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        hugepage_limits: [{ page_size: '2MB', limit: 2 << 20 }],
        unified: { 'memory.oom.group': '1', 'memory.high': `${48 << 20}` },
      },
    },
  })
  const { pid } = await node.kubelet.containerInfo(id)
  const files = 'memory.max memory.swap.max memory.high memory.oom.group hugetlb.2MB.max cpu.max cpuset.cpus'
  const limits = () =>
    node.guest.output(`cd /sys/fs/cgroup$(sed 's/^0:://' /proc/${pid}/cgroup) && head -n 1 ${files}`)
  const before = await limits()
  assert.match(before, /memory\.oom\.group <==\n1\n/)
  for (const verb of ['daemon-reload', 'daemon-reexec']) {
    await node.guest.output(`systemctl ${verb}`)
    assert.equal(await limits(), before, verb)
    await assertServes(id)
  }
  await node.client.runtime('UpdateContainerResources', {
    container_id: id,
    linux: { memory_limit_in_bytes: 80 << 20, memory_swap_limit_in_bytes: 80 << 20 },
  })
  await node.guest.output('systemctl daemon-reload')
  const updated = before.replace(`${64 << 20}`, `${80 << 20}`)
  assert.equal(await limits(), updated, 'UpdateContainerResources')
  await assertServes(await serve(pod))
})

test('the kernel kills for memory: one process of many, or a container while the daemon is away', async () => {
  const { pod } = await runPod()
  const linux = { resources: { memory_limit_in_bytes: 16 << 20, memory_swap_limit_in_bytes: 16 << 20 } }
  const many = await node.kubelet.run(
    pod,
    `sh -c 'x=a; while :; do x=$x$x; done'; echo "child $?"; ${FOREVER}`,
    { linux },
  )
  await node.kubelet.prints(many, 'child 137')
  await assertServes(many)

  const single = await node.kubelet.run(
    pod,
    'while [ ! -e /now ]; do sleep 1; done; x=a; while :; do x=$x$x; done',
    {
      linux,
    },
  )
  const { pid } = await node.kubelet.containerInfo(single)
  await node.guest.output('systemctl stop berth')
  await node.guest.output(`touch /proc/${pid}/root/now; while [ -d /proc/${pid} ]; do sleep 0.2; done`)
  await node.startUnit()
  assert.deepEqual(await endOf(single), [137, 'OOMKilled'])
  await assertServes(many)
  assert.equal(await node.guest.output('systemctl list-units --failed --plain --no-legend "berth-*"'), '')
})

test('a container that was killed for memory is told as such, also where its group goes before its monitor has looked', async () => {
  const { pod } = await runPod()
  const linux = { resources: { memory_limit_in_bytes: 16 << 20, memory_swap_limit_in_bytes: 16 << 20 } }
  const grows = 'while [ ! -e /now ]; do sleep 1; done; x=a; while :; do x=$x$x; done'
  for (const end of ['touch /proc/PID/root/now', 'kill -KILL PID']) {
    const id = await node.kubelet.run(pod, grows, { linux })
    const { pid } = await node.kubelet.containerInfo(id)
    const group = (await node.guest.output(`sed 's/^0:://' /proc/${pid}/cgroup`)).trim()
    const monitor = `berth-conmon-${id}.scope`
    await node.guest.output(`systemctl kill --signal=STOP ${monitor}`)
    await node.guest.output(
      `${end.replace('PID', `${pid}`)}; while [ -d /sys/fs/cgroup${group} ]; do sleep 0.2; done`,
    )
    await node.guest.output(`systemctl kill --signal=CONT ${monitor}`)
    assert.deepEqual(await endOf(id), [137, end.startsWith('touch') ? 'OOMKilled' : 'Error'])
  }
})

test('without the bus nothing new is made, the rest goes on; and all is well when it is back', async () => {
  const { pod } = await runPod()
  const [stays, goes] = [await serve(pod), await serve(pod)]
  await node.guest.output('systemctl stop dbus.socket dbus.service')
  try {
    await assertServes(stays)
    await assert.rejects(serve(pod), /systemd does not start berth-conmon-\S+: Failed to connect/)
    await node.kubelet.stop(goes, 60)
    assert.deepEqual(await endOf(goes), [5, 'Error'])
    await node.kubelet.remove(goes)
  } finally {
    await node.guest.output('systemctl start dbus.socket dbus.service')
  }
  await assertServes(await serve(pod))
  await node.guest.output('systemctl restart dbus.service')
  await assertServes(await serve(pod))
  await assertServes(stays)
})
