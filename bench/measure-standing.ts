import { sleep } from '../src/base/clock.ts'
import { CriPeer } from './cri-peer.ts'
import { makeGroup, removeGroup } from './measure-pods.ts'
import { forEachOf, numbersFrom } from './parallel.ts'
import type { Peer } from './peer.ts'
import { type Plan, WIDTH } from './plan.ts'
import { proportionalMiB, residentMiB } from './processes.ts'
import type { Samples } from './statistics.ts'

/** For what the start of the pods left to be done in the background. */
const SETTLE_MS = 5000

/**
 * Lists, statistics, memory and restarts with many pods. One peer after the other: the programs they share would
 * otherwise count half for each.
 */
export async function measureStanding(peer: Peer, plan: Plan, samples: Samples): Promise<void> {
  const pods = numbersFrom(0, plan.standingPods)
  for (const pod of pods) await makeGroup(peer, pod)
  await forEachOf(pods, WIDTH, async pod => void (await peer.up(pod, 'runc')))
  if (peer instanceof CriPeer) await lists(peer, plan, samples)
  await sleep(SETTLE_MS)
  const processes = peer.processes()
  samples.add('all pss', peer.name, proportionalMiB(processes))
  if (peer instanceof CriPeer) {
    samples.add('daemon rss', peer.name, residentMiB(peer.daemon.pid))
    samples.add('daemon pss', peer.name, proportionalMiB([peer.daemon.pid]))
    await restarts(peer, plan, samples)
  }
  await forEachOf(pods, WIDTH, async pod => void (await peer.down(pod)))
  for (const pod of pods) await removeGroup(peer, pod)
}

async function lists(peer: CriPeer, plan: Plan, samples: Samples): Promise<void> {
  const { client } = peer.daemon
  const calls: ReadonlyArray<[measure: string, times: number, call: () => Promise<unknown>]> = [
    ['version', plan.lists, () => client.runtime('Version', {})],
    ['list pods', plan.lists, () => client.runtime('ListPodSandbox', {})],
    ['list containers', plan.lists, () => client.runtime('ListContainers', {})],
    ['container stats', plan.statistics, () => client.runtime('ListContainerStats', {})],
    ['pod stats', plan.statistics, () => client.runtime('ListPodSandboxStats', {})],
  ]
  for (const [measure, times, call] of calls) {
    for (let i = 0; i < times / 4; i++) await call() // warm-up
    for (let i = 0; i < times; i++) {
      const started = performance.now()
      await call()
      samples.add(measure, peer.name, performance.now() - started)
    }
  }
}

async function restarts(peer: CriPeer, plan: Plan, samples: Samples): Promise<void> {
  const before = await peer.startTimes()
  for (let i = 0; i < plan.restarts; i++) samples.add('restart', peer.name, (await peer.restart()) / 1000)
  for (const [id, started] of await peer.startTimes()) {
    if (started !== before.get(id))
      throw new Error(`${peer.name}: container ${id} was restarted with the daemon`)
  }
}
