import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { GuestNode } from '../support/guest/node.ts'
import type { TestPod } from '../support/kubelet.ts'
import { until } from '../support/wait.ts'

/*
 * The unit under the real systemd, and what a reboot and a power cut leave. One machine for all: the tests build on one
 * another.
 */

/** A host that is busy with something else emulates slowly. */
const PATIENCE_MS = 180_000

/** Ends when the machine is shut down, as a container has to: without that a shutdown waits for a minute and a half. */
const SERVER = "trap 'exit 0' TERM; echo begun; while :; do sleep 1; done"

let node: GuestNode
let pod: TestPod
let container: string
let pid: number

before(async () => {
  node = await GuestNode.start()
  pod = await node.kubelet.runPod({ labels: { app: 'web' } })
  container = await node.kubelet.run(pod, SERVER, { annotations: { hash: 'a1' } })
  pid = (await node.kubelet.containerInfo(container)).pid
})
after(() => node?.[Symbol.asyncDispose]())

function property(name: string): Promise<string> {
  return node.guest.output(`systemctl show -p ${name} --value berth`).then(text => text.trim())
}

async function assertRunning(): Promise<void> {
  assert.equal((await node.kubelet.status(container)).state, 'CONTAINER_RUNNING')
  assert.equal((await node.kubelet.containerInfo(container)).pid, pid)
  assert.equal((await node.kubelet.podStatus(pod.id)).state, 'SANDBOX_READY')
  assert.equal((await node.kubelet.exec(container, 'echo $((6 * 7))')).stdout, '42\n')
}

test('the daemon tells systemd that it is ready, and that its event loop turns', async () => {
  assert.equal(await property('ActiveState'), 'active')
  assert.equal(await property('Type'), 'notify')
  await node.guest.write('/etc/systemd/system/berth.service.d/watchdog.conf', '[Service]\nWatchdogSec=20\n')
  await node.guest.output('systemctl daemon-reload && systemctl restart berth')
  await node.connectWhenServing()
  const first = await property('WatchdogTimestampMonotonic')
  const pinged = async () => (await property('WatchdogTimestampMonotonic')) !== first
  await until('the watchdog is pinged', pinged, PATIENCE_MS)
})

test('a restart leaves pods and containers alone', async () => {
  await node.guest.output('systemctl restart berth')
  await node.connectWhenServing()
  await assertRunning()
})

test('a killed daemon is started again and knows its pods', async () => {
  const before = await property('MainPID')
  await node.guest.output('systemctl kill --signal=KILL --kill-whom=main berth')
  await until(
    'systemd has started another',
    async () => {
      const now = await property('MainPID')
      return now !== before && now !== '0'
    },
    PATIENCE_MS,
  )
  await node.connectWhenServing()
  await assertRunning()
})

test('containers run on while the unit is stopped', async () => {
  await node.guest.output('systemctl stop berth')
  assert.match(await node.guest.output(`cat /proc/${pid}/cmdline`), /while/)
  assert.equal(await property('Result'), 'success')
  await node.startUnit()
  await assertRunning()
})

test('a configuration that is wrong is named in the journal, and the unit fails', async () => {
  await node.guest.write('/etc/berth/berth.conf.d/99-wrong.conf', '[crio.runtime]\nlog_levle = "debug"\n')
  await node.guest.output('systemctl stop berth')
  assert.notEqual((await node.guest.run('systemctl start berth')).code, 0)
  assert.match(await node.log(), /99-wrong\.conf:2: .*log_levle.*log_level/)
  await node.guest.output('rm /etc/berth/berth.conf.d/99-wrong.conf; systemctl reset-failed berth')
  await node.startUnit()
  await assertRunning()
})

for (const [what, happens] of [
  ['a reboot', () => node.guest.reboot()],
  ['a power cut', () => node.guest.powerCycle()],
] as const) {
  test(`after ${what} pods are not ready, containers have exited, and nothing else is lost`, async () => {
    await node.guest.output('systemctl enable --quiet berth; sync')
    await happens()
    await node.reconnect()
    const status = await node.kubelet.status(container)
    assert.equal(status.state, 'CONTAINER_EXITED')
    assert.equal(status.annotations.hash, 'a1')
    assert.equal((await node.kubelet.logOf(container))[0]?.text, 'begun')
    const { state, labels } = await node.kubelet.podStatus(pod.id)
    assert.deepEqual([state, labels.app], ['SANDBOX_NOTREADY', 'web'])

    // kubelet's next attempt: another pod of the same name, from the image that is there.
    const metadata = { ...pod.config.metadata, attempt: (pod.config.metadata?.attempt ?? 0) + 1 }
    const next = { ...pod.config, metadata }
    const id = await node.kubelet.runPodAs(next)
    const again = await node.kubelet.run({ id, config: next }, SERVER, {
      annotations: { hash: 'a1' },
    })
    assert.equal((await node.kubelet.exec(again, 'echo alive')).stdout, 'alive\n')
    await node.kubelet.removePod(pod.id)
    pod = { id, config: next }
    container = again
  })
}

test('with all pods gone nothing of them is left', async () => {
  await node.kubelet.removePod(pod.id)
  const left = await node.guest.output(
    'ls /run/berth/containers /run/berth/pods; ls -d /sys/fs/cgroup/kubepods/*/berth-* 2>/dev/null; pgrep -l conmon; true',
  )
  assert.doesNotMatch(left, /[0-9a-f]{64}|conmon/)
})
