import { sleep } from '../src/base/clock.ts'
import { syncFileSystem } from '../src/os/files.ts'
import { CriPeer } from './cri-peer.ts'
import type { Puller } from './peer.ts'
import type { Plan } from './plan.ts'
import { residentMiB, treeOf } from './processes.ts'
import type { Registry } from './registry.ts'
import { quantile, type Samples } from './statistics.ts'

export async function measurePulls(
  peers: readonly Puller[],
  registry: Registry,
  plan: Plan,
  samples: Samples,
): Promise<void> {
  const { sixLayers, oneNew, fortyLayers } = registry.names
  for (let round = 0; round < plan.pulls; round++) {
    for (const peer of peers) {
      await measurePull(peer, registry, sixLayers, 6, 'six', samples)
      // The script knows no layers but those of the image it fetches.
      if (peer.name !== 'floor') await measurePull(peer, registry, oneNew, 1, 'one new', samples)
      if (peer instanceof CriPeer) await peer.removeImage(oneNew)
      await peer.removeImage(sixLayers)
      await measurePull(peer, registry, fortyLayers, 40, 'forty', samples)
      await peer.removeImage(fortyLayers)
    }
  }
}

/** Twice: until the call returns, and until a sync of the file system after it has returned as well. */
async function measurePull(
  peer: Puller,
  registry: Registry,
  image: string,
  layers: number,
  measure: string,
  samples: Samples,
): Promise<void> {
  await syncFileSystem(peer.storage) // what was written before this pull is not its cost
  await registry.blobsServed()
  const cpuBefore = peer.cpuMs()
  const started = performance.now()
  await peer.pull(image)
  const pulled = performance.now()
  await syncFileSystem(peer.storage)
  const synced = performance.now()
  const cpuAfter = peer.cpuMs()
  const served = await registry.blobsServed()
  // The configuration is a blob, too.
  if (served < layers || served > layers + 1) {
    throw new Error(`${peer.name}: ${served} blobs were fetched for the ${layers} new layers of ${image}`)
  }
  samples.add(`pull ${measure}`, peer.name, (pulled - started) / 1000)
  samples.add(`pull ${measure}, synced`, peer.name, (synced - started) / 1000)
  if (cpuBefore !== undefined && cpuAfter !== undefined) {
    samples.add(`pull ${measure}, cpu`, peer.name, (cpuAfter - cpuBefore) / 1000)
  }
}

const LOOK_MS = 50

/** What a daemon costs and how it answers while it pulls. */
export async function measurePulling(peer: CriPeer, registry: Registry, samples: Samples): Promise<void> {
  const { large, sixLayers } = registry.names
  const memory = watch(peer)
  await peer.pull(large)
  const { daemon, others } = memory.end()
  samples.add('pulling rss', peer.name, daemon)
  samples.add('pulling workers rss', peer.name, others)
  await peer.removeImage(large)

  const calls = callAlong(peer)
  await Promise.all([peer.pull(large), peer.pull(sixLayers)])
  const latencies = await calls.end()
  samples.add('pulling p50', peer.name, quantile(latencies, 0.5))
  samples.add('pulling p99', peer.name, quantile(latencies, 0.99))
  await peer.removeImage(large)
  await peer.removeImage(sixLayers)
}

/** The most memory that the daemon itself and all its children together have had, MiB. */
function watch({ daemon }: CriPeer): { end(): { daemon: number; others: number } } {
  const most = { daemon: 0, others: 0 }
  const look = () => {
    const children = treeOf(daemon.pid).filter(({ pid }) => pid !== daemon.pid)
    most.daemon = Math.max(most.daemon, residentMiB(daemon.pid))
    most.others = Math.max(
      most.others,
      children.reduce((sum, { pid }) => sum + residentMiB(pid), 0),
    )
  }
  const timer = setInterval(look, LOOK_MS)
  return {
    end: () => {
      clearInterval(timer)
      return most
    },
  }
}

/** What kubelet asks all the time, one call after the other. */
function callAlong({ daemon }: CriPeer): { end(): Promise<readonly number[]> } {
  const latencies: number[] = []
  let isOver = false
  const run = async () => {
    const calls = [
      () => daemon.client.runtime('Version', {}),
      () => daemon.client.runtime('ListPodSandbox', {}),
      () => daemon.client.runtime('ListContainers', {}),
      () => daemon.client.runtime('Status', {}),
      () => daemon.client.image('ListImages', {}),
    ]
    for (let i = 0; !isOver; i++) {
      const started = performance.now()
      await calls[i % calls.length]!()
      latencies.push(performance.now() - started)
      await sleep(5)
    }
  }
  const running = run()
  return {
    end: async () => {
      isOver = true
      await running
      return latencies
    },
  }
}
