import assert from 'node:assert/strict'
import { newId } from '../../../src/base/ids.ts'
import type { FoundDifference } from '../check.ts'
import { FOREVER, type TestPod } from '../kubelet.ts'
import { leftoversOf } from './leftovers.ts'
import type { GuestNode } from './node.ts'

type Found = { readonly code: number; readonly differences: readonly FoundDifference[] }

/** `berth check` in the guest. */
export async function checkIn(node: GuestNode, flags = ''): Promise<Found> {
  const { code, stdout } = await node.guest.run(`berth check --json ${flags}`)
  assert.ok(code === 0 || code === 4, `berth check ended with ${code}: ${stdout}`)
  return { code, ...(JSON.parse(stdout) as Omit<Found, 'code'>) }
}

/** A cgroup as that of a container with an id which no row has. */
export type StrayGroup = {
  /** Below the parent of a pod. */
  make(id: string, parent: string): Promise<void>
  /** Ends the process in it, if there is one: that may be another daemon's, and no repair touches it. */
  end?(id: string): Promise<void>
}

/**
 * `berth check`, `--repair` and `berth wipe` where cgroups are what this node's driver makes. The last of a guest's
 * tests: nothing of the node is left then, and its daemon does not run.
 * @param runPods some pods, one container in each
 */
export async function checkAndWipe(
  node: GuestNode,
  runPods: () => Promise<readonly TestPod[]>,
  stray: StrayGroup,
): Promise<void> {
  const { guest, kubelet } = node
  const pods = await runPods()
  const ids = await Promise.all(pods.map(pod => kubelet.run(pod, FOREVER)))
  const pids = await Promise.all(ids.map(async id => (await kubelet.containerInfo(id)).pid))
  assert.deepEqual((await checkIn(node)).differences, [])

  const strayId = newId()
  await stray.make(strayId, pods[0]!.config.linux!.cgroup_parent!)
  const rootfs = `/var/lib/berth/rootfs/${ids[0]}/merged`
  await guest.output(`mkdir -p ${rootfs}/tmp && mount -t tmpfs none ${rootfs}/tmp`)
  const monitor = await guest.output(`pgrep -f 'conmon.*${ids[1]}' | head -1`)
  await guest.output(`kill -9 ${monitor.trim()}`)
  const kinds = ({ differences }: Found) =>
    differences.map(({ kind, subject }) => `${kind} ${subject}`).sort()
  const found = await checkIn(node)
  assert.equal(found.code, 4)
  const gone = `monitor-gone ${ids[1]}`
  const expected = [`container-stray ${strayId}`, `mount-unknown ${rootfs}/tmp`, gone]
  assert.deepEqual(kinds(found), expected.sort())
  assert.ok(found.differences.every(({ cause, remedy }) => cause !== '' && remedy !== ''))
  await checkIn(node, '--repair')
  if (stray.end !== undefined) {
    assert.deepEqual(kinds(await checkIn(node)), [`container-stray ${strayId}`, gone])
    await stray.end(strayId)
  }
  assert.deepEqual(kinds(await checkIn(node)), [gone], 'what nobody can give back is told again')
  assert.equal((await guest.run(`find /sys/fs/cgroup -name '*${strayId}*'`)).stdout, '')
  for (const [index, id] of ids.entries()) {
    assert.equal((await kubelet.containerInfo(id)).pid, pids[index])
    assert.equal((await kubelet.exec(id, 'echo on')).stdout, 'on\n')
  }

  await guest.output('systemctl stop berth')
  const listed = await guest.output('berth wipe --dry-run --force')
  for (const id of ids) assert.ok(listed.includes(id.slice(0, 12)), listed)
  assert.equal((await guest.run(`kill -0 ${pids.join(' ')}`)).code, 0, 'looking has ended nothing')
  await guest.output('berth wipe --yes --force')
  assert.deepEqual(await leftoversOf(guest), [])
}
