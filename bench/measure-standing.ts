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

type Add = (measure: string, value: number) => void

/** What a measure with so many pods is called. */
export function standing(pods: number, measure: string): string {
  return `${pods} pods, ${measure}`
}

/**
 * Lists, statistics, memory and restarts with many pods. One peer after the other: the programs they share would
 * otherwise count half for each.
 */
export async function measureStanding(
  peer: Peer,
  count: number,
  plan: Plan,
  samples: Samples,
): Promise<void> {
  const pods = numbersFrom(0, count)
  const add = (measure: string, value: number) => samples.add(standing(count, measure), peer.name, value)
  for (const pod of pods) await makeGroup(peer, pod)
  await forEachOf(pods, WIDTH, async pod => void (await peer.up(pod, 'runc')))
  if (peer instanceof CriPeer) await lists(peer, plan, add)
  await sleep(SETTLE_MS)
  const processes = peer.processes()
  add('all pss', proportionalMiB(processes))
  if (peer instanceof CriPeer) {
    add('daemon rss', residentMiB(peer.daemon.pid))
    add('daemon pss', proportionalMiB([peer.daemon.pid]))
    await restarts(peer, plan, add)
  }
  await forEachOf(pods, WIDTH, async pod => void (await peer.down(pod)))
  for (const pod of pods) await removeGroup(peer, pod)
}

async function lists(peer: CriPeer, plan: Plan, add: Add): Promise<void> {
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
      add(measure, performance.now() - started)
    }
  }
}

async function restarts(peer: CriPeer, plan: Plan, add: Add): Promise<void> {
  const before = await peer.startTimes()
  for (let i = 0; i < plan.restarts; i++) add('restart', (await peer.restart()) / 1000)
  for (const [id, started] of await peer.startTimes()) {
    if (started !== before.get(id))
      throw new Error(`${peer.name}: container ${id} was restarted with the daemon`)
  }
}
