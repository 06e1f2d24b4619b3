import { openCgroups } from '../src/os/cgroup/open-cgroups.ts'
import { CriPeer } from './cri-peer.ts'
import { forEachOf, numbersFrom } from './parallel.ts'
import type { Handler, Peer, Steps } from './peer.ts'
import { placesOf } from './places.ts'
import { type Plan, WIDTH } from './plan.ts'
import { cpuMs } from './processes.ts'
import type { Samples } from './statistics.ts'

const WARM_UP = 4

/** Pods up and down and exec, all peers in turn within each round. */
export async function measurePods(
  peers: readonly Peer[],
  handler: Handler,
  plan: Plan,
  samples: Samples,
): Promise<void> {
  for (const peer of peers) await together(peer, handler, numbersFrom(0, WARM_UP))
  for (let round = 0; round < plan.rounds; round++) {
    for (const peer of peers) {
      await oneByOne(peer, handler, plan, samples)
      await eightAtATime(peer, handler, plan, samples)
      await execs(peer, handler, plan, samples)
    }
  }
}

async function oneByOne(peer: Peer, handler: Handler, plan: Plan, samples: Samples): Promise<void> {
  for (const pod of numbersFrom(0, plan.serialPods)) {
    await withGroup(peer, pod, async () => {
      const up = await peer.up(pod, handler)
      const down = await peer.down(pod)
      samples.add(`${handler} up, 1`, peer.name, total(up))
      samples.add(`${handler} down, 1`, peer.name, total(down))
      for (const [step, ms] of Object.entries({ ...up, ...down })) {
        samples.add(`${handler} ${step}`, peer.name, ms)
      }
    })
  }
}

async function eightAtATime(peer: Peer, handler: Handler, plan: Plan, samples: Samples): Promise<void> {
  const pods = numbersFrom(0, plan.parallelPods)
  const cpuBefore = peer instanceof CriPeer ? cpuMs(peer.daemon.pid) : 0
  const { up, down, seconds } = await together(peer, handler, pods)
  if (peer instanceof CriPeer) {
    const spent = cpuMs(peer.daemon.pid) - cpuBefore
    samples.add(`${handler} daemon cpu`, peer.name, spent / pods.length)
  }
  samples.add(`${handler} up, 8`, peer.name, ...up)
  samples.add(`${handler} down, 8`, peer.name, ...down)
  samples.add(`${handler} up/s`, peer.name, pods.length / seconds.up)
  samples.add(`${handler} down/s`, peer.name, pods.length / seconds.down)
}

/** All up, then all down. */
async function together(peer: Peer, handler: Handler, pods: readonly number[]) {
  const [up, down]: [number[], number[]] = [[], []]
  for (const pod of pods) await makeGroup(peer, pod)
  const started = performance.now()
  await forEachOf(pods, WIDTH, async pod => void up.push(total(await peer.up(pod, handler))))
  const between = performance.now()
  await forEachOf(pods, WIDTH, async pod => void down.push(total(await peer.down(pod))))
  const ended = performance.now()
  for (const pod of pods) await removeGroup(peer, pod)
  return { up, down, seconds: { up: (between - started) / 1000, down: (ended - between) / 1000 } }
}

async function execs(peer: Peer, handler: Handler, plan: Plan, samples: Samples): Promise<void> {
  await withGroup(peer, 0, async () => {
    await peer.up(0, handler)
    const timed = async (width: number) => {
      const times: number[] = []
      await forEachOf(numbersFrom(0, plan.execs), width, async () => {
        const started = performance.now()
        await peer.exec(0)
        times.push(performance.now() - started)
      })
      return times
    }
    await timed(1) // warm-up
    samples.add(`${handler} exec, 1`, peer.name, ...(await timed(1)))
    samples.add(`${handler} exec, 8`, peer.name, ...(await timed(WIDTH)))
    await peer.down(0)
  })
}

/** The pod's control group, which kubelet makes and removes. */
async function withGroup(peer: Peer, pod: number, work: () => Promise<void>): Promise<void> {
  await makeGroup(peer, pod)
  await work()
  await removeGroup(peer, pod)
}

const cgroups = openCgroups()

export async function makeGroup(peer: Peer, pod: number): Promise<void> {
  await cgroups.create(`${placesOf(peer.name).cgroup}/pod${pod}`)
}

export async function removeGroup(peer: Peer, pod: number): Promise<void> {
  await cgroups.remove(`${placesOf(peer.name).cgroup}/pod${pod}`)
}

function total(steps: Steps): number {
  return Object.values(steps).reduce((sum, ms) => sum + ms, 0)
}
