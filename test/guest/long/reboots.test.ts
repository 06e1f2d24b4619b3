import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Semaphore } from '../../../src/base/semaphore.ts'
import type { ContainerStatus__Output } from '../../../src/cri/generated/runtime/v1/ContainerStatus.ts'
import { leftoversOf } from '../../support/guest/leftovers.ts'
import { GuestNode } from '../../support/guest/node.ts'
import type { TestPod } from '../../support/kubelet.ts'

/*
 * A node with twenty pods of every kind is rebooted, and then loses its power.
 */

const PODS = 20
/** Side by side: an emulated machine with two processors does no more at once. */
const PARALLEL = 3

const SERVER = "trap 'exit 0' TERM; echo begun; while :; do sleep 1; done"

const KINDS = [
  { name: 'of-its-own', namespaces: {} },
  { name: 'host-network', namespaces: { network: 'NODE' } },
  { name: 'shared-pid', namespaces: { pid: 'POD' } },
  { name: 'host-pid-and-ipc', namespaces: { pid: 'NODE', ipc: 'NODE' } },
] as const

const DRIVERS = [
  { driver: 'cgroupfs', parentOf: (index: number) => `/kubepods/burstable/pod${index}` },
  {
    driver: 'systemd',
    parentOf: (index: number) =>
      `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${index}.slice`,
  },
] as const

type Known = {
  readonly pod: TestPod
  readonly running: ContainerStatus__Output
  readonly exited: ContainerStatus__Output
  readonly created: ContainerStatus__Output
}

function eachPod<T>(work: (index: number) => Promise<T>): Promise<T[]> {
  const slots = new Semaphore('pods', PARALLEL)
  return Promise.all(Array.from({ length: PODS }, (_, index) => slots.run(() => work(index))))
}

/** A pod with a container that runs, one that has ended, and one that was never started. */
async function fill(
  { kubelet }: GuestNode,
  cgroup_parent: string,
  index: number,
  attempt: number,
): Promise<Known> {
  const kind = KINDS[index % KINDS.length]!
  const config = kubelet.podConfig({
    metadata: { name: `pod-${index}`, uid: `uid-${index}`, namespace: 'default', attempt },
    labels: { index: `${index}`, kind: kind.name },
    annotations: { attempt: `${attempt}` },
    log_directory: `/var/log/pods/default_pod-${index}_uid-${index}`,
    linux: {
      cgroup_parent,
      security_context: { namespace_options: { pid: 'CONTAINER', ...kind.namespaces } },
    },
  })
  const pod = { id: await kubelet.runPodAs(config), config }
  const changes = (name: string) => ({
    metadata: { name, attempt },
    labels: { name },
    annotations: { hash: `${index}-${name}` },
    log_path: `${name}/${attempt}.log`,
  })
  const exited = await kubelet.run(pod, 'echo done; exit 4', changes('ends'))
  const running = await kubelet.run(pod, SERVER, changes('serves'))
  const created = await kubelet.create(pod, SERVER, changes('waits'))
  await kubelet.exited(exited)
  await kubelet.prints(running, 'begun')
  assert.equal((await kubelet.exec(running, 'echo alive')).stdout, 'alive\n')
  return {
    pod,
    running: await kubelet.status(running),
    exited: await kubelet.status(exited),
    created: await kubelet.status(created),
  }
}

/** `orderly`: what runs was told to end, and its monitor may have had the time to write down how. */
async function assertGone({ kubelet, client }: GuestNode, known: Known, orderly: boolean): Promise<void> {
  const { pod, running, exited, created } = known
  const { state, labels, annotations } = await kubelet.podStatus(pod.id)
  assert.equal(state, 'SANDBOX_NOTREADY')
  assert.deepEqual({ ...labels }, pod.config.labels)
  assert.deepEqual({ ...annotations }, pod.config.annotations)
  assert.deepEqual(await kubelet.status(exited.id), exited)
  for (const before of [running, created]) {
    const now = await kubelet.status(before.id)
    assert.equal(now.state, 'CONTAINER_EXITED')
    if (orderly && now.reason !== 'NodeReboot') {
      assert.match(now.reason, /^(Completed|Error)$/)
      assert.equal(now.exit_code === 0, now.reason === 'Completed')
    } else {
      assert.deepEqual([now.exit_code, now.reason], [255, 'NodeReboot'])
    }
    assert.deepEqual(
      [now.annotations.hash, now.labels.name, now.created_at, now.started_at],
      [before.annotations.hash, before.labels.name, before.created_at, before.started_at],
    )
    assert.ok(BigInt(now.finished_at) > BigInt(before.created_at))
  }
  assert.equal((await kubelet.logOf(running.id))[0]?.text, 'begun')
  assert.equal((await kubelet.logOf(exited.id))[0]?.text, 'done')
  const { items } = await client.runtime('ListPodSandbox', {
    filter: { label_selector: { index: labels.index ?? '' } },
  })
  assert.deepEqual(
    items.map(({ id }) => id),
    [pod.id],
  )
}

for (const { driver, parentOf } of DRIVERS) {
  describe(`${driver}: ${PODS} pods`, () => {
    let node: GuestNode
    let known: Known[] = []

    before(async () => {
      node = await GuestNode.start({ config: `[crio.runtime]\ncgroup_manager = "${driver}"\n` })
    })
    after(() => node?.[Symbol.asyncDispose]())

    test('they are there', async () => {
      known = await eachPod(index => fill(node, parentOf(index), index, 0))
    })

    for (const [attempt, what, happens] of [
      [1, 'a reboot', () => node.guest.reboot()],
      [2, 'a power cut', () => node.guest.powerCycle()],
    ] as const) {
      test(`after ${what} none is ready, all containers have exited, and the next attempt works`, async () => {
        await node.guest.output('systemctl enable --quiet berth; sync')
        await happens()
        await node.reconnect()
        await eachPod(index => assertGone(node, known[index]!, what === 'a reboot'))
        const before = known
        known = await eachPod(index => fill(node, parentOf(index), index, attempt))
        await eachPod(index => node.kubelet.removePod(before[index]!.pod.id))
        for (const { running, pod } of known) {
          assert.equal((await node.kubelet.podStatus(pod.id)).state, 'SANDBOX_READY')
          assert.equal((await node.kubelet.status(running.id)).state, 'CONTAINER_RUNNING')
        }
      })
    }

    test('removed, they leave nothing', async () => {
      await eachPod(index => node.kubelet.removePod(known[index]!.pod.id))
      assert.deepEqual(await leftoversOf(node.guest), [])
    })
  })
}
