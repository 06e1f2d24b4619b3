import { syncFileSystem } from '../src/os/files.ts'
import type { Peer } from './peer.ts'
import type { Plan } from './plan.ts'
import type { Registry } from './registry.ts'
import type { Samples } from './statistics.ts'

export async function measurePulls(
  peers: readonly Peer[],
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
      if (peer.name !== 'floor') await peer.removeImage(oneNew)
      await peer.removeImage(sixLayers)
      await measurePull(peer, registry, fortyLayers, 40, 'forty', samples)
      await peer.removeImage(fortyLayers)
    }
  }
}

/** Twice: until the call returns, and until a sync of the file system after it has returned as well. */
async function measurePull(
  peer: Peer,
  registry: Registry,
  image: string,
  layers: number,
  measure: string,
  samples: Samples,
): Promise<void> {
  await syncFileSystem(peer.storage) // what was written before this pull is not its cost
  await registry.blobsServed()
  const started = performance.now()
  await peer.pull(image)
  const pulled = performance.now()
  await syncFileSystem(peer.storage)
  const synced = performance.now()
  const served = await registry.blobsServed()
  // The configuration is a blob, too.
  if (served < layers || served > layers + 1) {
    throw new Error(`${peer.name}: ${served} blobs were fetched for the ${layers} new layers of ${image}`)
  }
  samples.add(`pull ${measure}`, peer.name, (pulled - started) / 1000)
  samples.add(`pull ${measure}, synced`, peer.name, (synced - started) / 1000)
}
