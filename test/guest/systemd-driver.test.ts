import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { after, before, test } from 'node:test'
import { newId } from '../../src/base/ids.ts'
import type { LinuxContainerResources } from '../../src/cri/generated/runtime/v1/LinuxContainerResources.ts'
import { checkAndWipe, checkIn } from '../support/guest/check-and-wipe.ts'
import { GuestNode } from '../support/guest/node.ts'
import { FOREVER, type TestPod } from '../support/kubelet.ts'
import { until } from '../support/wait.ts'

/*
 * The cgroup driver systemd on the unified hierarchy, where systemd is the first process.
 */

let node: GuestNode
let serial = 0

before(async () => {
  node = await GuestNode.start({
    config: `[crio.runtime]
cgroup_manager = "systemd"
[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun"
`,
  })
})
after(async t => {
  if (!(t as unknown as { passed: boolean }).passed) console.log(await node.log())
  await node[Symbol.asyncDispose]()
})

/** A pod below slices that are named as kubelet names them. */
async function runPod(handler = ''): Promise<{ pod: TestPod; slice: string; path: string }> {
  const slice = `kubepods-burstable-pod${++serial}_a.slice`
  const path = `/kubepods.slice/kubepods-burstable.slice/${slice}`
  const pod = await node.kubelet.runPod(
    { linux: { cgroup_parent: path, security_context: { namespace_options: { pid: 'CONTAINER' } } } },
    handler,
  )
  return { pod, slice, path }
}

function cat(path: string): Promise<string> {
  return node.guest.output(`cat /sys/fs/cgroup${path}`).then(text => text.trim())
}

async function stateOf(unit: string): Promise<string> {
  return (await node.guest.run(`systemctl show -p ActiveState --value '${unit}'`)).stdout.trim()
}

async function units(pattern: string): Promise<string> {
  return (await node.guest.output(`systemctl list-units --all --plain --no-legend '${pattern}'`)).trim()
}

test('kubelet is told to use the same driver', async () => {
  const { linux } = await node.client.runtime('RuntimeConfig', {})
  assert.equal(linux?.cgroup_driver, 'SYSTEMD')
})

for (const handler of ['runc', 'crun']) {
  test(`${handler}: a container and its monitor are scopes in the slice of the pod, and go with it`, async () => {
    const { pod, path } = await runPod(handler)
    const resources: LinuxContainerResources = {
      cpu_shares: 512,
      cpu_quota: 50_000,
      cpu_period: 100_000,
      memory_limit_in_bytes: 64 << 20,
      memory_swap_limit_in_bytes: 64 << 20,
      unified: { 'memory.oom.group': '1' },
    }
    const id = await node.kubelet.run(pod, FOREVER, { linux: { resources } })
    const scope = `berth-${id}.scope`
    assert.deepEqual([await stateOf(scope), await stateOf(`berth-conmon-${id}.scope`)], ['active', 'active'])
    assert.equal(await cat(`${path}/${scope}/memory.max`), `${64 << 20}`)
    // crun 1.21 tells systemd the sum of memory and swap.
    if (handler === 'runc') assert.equal(await cat(`${path}/${scope}/memory.swap.max`), '0')
    assert.equal(await cat(`${path}/${scope}/cpu.max`), '50000 100000')
    const { pid } = await node.kubelet.containerInfo(id)
    assert.match(await node.guest.output(`cat /proc/${pid}/cgroup`), new RegExp(`^0::${path}/${scope}`))

    await node.client.runtime('UpdateContainerResources', {
      container_id: id,
      linux: {
        memory_limit_in_bytes: 96 << 20,
        memory_swap_limit_in_bytes: 96 << 20,
        cpu_quota: 75_000,
        cpu_period: 100_000,
      },
    })
    assert.equal(await cat(`${path}/${scope}/memory.max`), `${96 << 20}`)
    assert.equal(await cat(`${path}/${scope}/cpu.max`), '75000 100000')
    // systemd writes what it knows at a reload: nothing of ours may be lost then.
    await node.guest.output('systemctl daemon-reload')
    assert.equal(await cat(`${path}/${scope}/memory.max`), `${96 << 20}`)

    const { stats } = await node.client.runtime('ContainerStats', { container_id: id })
    assert.ok(BigInt(stats?.memory?.working_set_bytes?.value ?? 0) > 0n)
    assert.notEqual(stats?.cpu?.psi ?? null, null)
    assert.equal((await node.kubelet.exec(id, 'cat /proc/self/cgroup; exit 3')).code, 3)

    await node.kubelet.removePod(pod.id)
    assert.equal(await units(`berth-*${id}*`), '')
    assert.equal((await node.guest.run(`ls -d /sys/fs/cgroup${path}/berth-*`)).stdout, '')
  })
}

test('a container that the kernel kills for memory says so, and leaves no failed unit', async () => {
  const { pod, path } = await runPod()
  const id = await node.kubelet.run(pod, 'x=a; while :; do x=$x$x; done', {
    linux: { resources: { memory_limit_in_bytes: 16 << 20, memory_swap_limit_in_bytes: 16 << 20 } },
  })
  const { exit_code, reason } = await node.kubelet.exited(id)
  assert.deepEqual([exit_code, reason], [137, 'OOMKilled'])
  await node.kubelet.removePod(pod.id)
  assert.equal(await units(`berth-*${id}*`), '')
  assert.equal((await node.guest.run(`ls -d /sys/fs/cgroup${path}/berth-*`)).stdout, '')
})

test('a pod without a parent gets a slice of its own, a shared PID namespace a scope for its init', async () => {
  const pod = await node.kubelet.runPod({
    linux: { cgroup_parent: '', security_context: { namespace_options: { pid: 'POD' } } },
  })
  const slice = `berth-pod${pod.id}.slice`
  const id = await node.kubelet.run(pod, FOREVER)
  assert.deepEqual(
    [await stateOf(slice), await stateOf(`berth-${pod.id}.scope`), await stateOf(`berth-${id}.scope`)],
    ['active', 'active', 'active'],
  )
  const { stats } = await node.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id })
  assert.ok(BigInt(stats?.linux?.memory?.working_set_bytes?.value ?? 0) > 0n)
  await node.kubelet.removePod(pod.id)
  assert.equal(await units(`berth-*${pod.id}*`), '')
  assert.equal((await node.guest.run(`ls -d /sys/fs/cgroup/berth.slice/${slice}`)).stdout, '')
})

test('a parent that is no slice is refused', async () => {
  await assert.rejects(
    node.kubelet.runPod({ linux: { cgroup_parent: '/kubepods/pod1' } }),
    /config\.linux\.cgroup_parent: must end in the name of a slice/,
  )
})

test('a daemon killed while a container is made leaves no scope behind', async () => {
  const { pod, path } = await runPod()
  const made = node.kubelet.create(pod, FOREVER).catch((error: unknown) => error)
  await until('a scope of a monitor exists', async () =>
    (await node.guest.run(`ls -d /sys/fs/cgroup${path}/berth-conmon-*`)).stdout.trim(),
  )
  await node.guest.output('systemctl kill --signal=KILL --kill-whom=main berth')
  await made
  await node.connectWhenServing()
  const { containers } = await node.client.runtime('ListContainers', {})
  const kept = containers.filter(({ pod_sandbox_id }) => pod_sandbox_id === pod.id).map(({ id }) => id)
  const found =
    (await node.guest.run(`ls /sys/fs/cgroup${path}`)).stdout.match(/berth-(conmon-)?[0-9a-f]{64}/g) ?? []
  for (const name of found) assert.ok(kept.includes(name.slice(-64)), `${name} belongs to no container`)
  await node.kubelet.removePod(pod.id)
  assert.equal(await units(`berth-*.scope`), '')
})

test('a slice that is no pod’s is removed by a repair, but for one in which something runs', async () => {
  const id = newId()
  const slice = `berth-pod${id}.slice`
  const scope = `systemd-run --quiet --scope --slice=${slice} --unit=stranger.scope sleep 1000`
  await node.guest.output(`setsid ${scope} >/dev/null 2>&1 & sleep 1`)
  assert.equal(await stateOf('stranger.scope'), 'active')
  const repaired = await checkIn(node, '--repair')
  assert.deepEqual(
    repaired.differences.map(({ kind, subject }) => [kind, subject]),
    [['pod-stray', id]],
  )
  assert.match(repaired.differences[0]!.error, /EBUSY/)
  assert.equal(await stateOf('stranger.scope'), 'active')
  await node.guest.output('systemctl stop stranger.scope')
  await checkIn(node, '--repair')
  assert.deepEqual((await checkIn(node)).differences, [])
  assert.equal((await node.guest.run(`find /sys/fs/cgroup -name '${slice}'`)).stdout, '')
})

test('berth check names and repairs what differs, scopes too, and berth wipe leaves nothing', async () => {
  const all = async () => {
    const own = await node.kubelet.runPod({
      linux: { cgroup_parent: '', security_context: { namespace_options: { pid: 'POD' } } },
    })
    return [(await runPod()).pod, (await runPod('crun')).pod, own]
  }
  await checkAndWipe(node, all, {
    make: async (id, parent) => {
      const unit = `--slice=${basename(parent)} --unit=berth-${id}.scope`
      await node.guest.output(
        `setsid systemd-run --quiet --scope ${unit} sleep 1000 >/dev/null 2>&1 & sleep 1`,
      )
      assert.equal(await stateOf(`berth-${id}.scope`), 'active')
    },
    end: async id => {
      assert.equal(await stateOf(`berth-${id}.scope`), 'active')
      await node.guest.output(`systemctl stop berth-${id}.scope`)
    },
  })
})
