import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PeerName } from './peer.ts'
import { placesOf } from './places.ts'

/** Those that run pods. */
type PodPeer = Exclude<PeerName, 'skopeo'>

export const PLUGIN_DIR = '/usr/lib/cni'

const SUBNETS: Readonly<Record<PodPeer, string>> = {
  floor: '10.201.0.0/16',
  containerd: '10.202.0.0/16',
  Berth: '10.203.0.0/16',
}

const CNI_VERSION = '1.0.0'

/** One bridge without masquerade, with addresses from a directory of the peer's own. */
function bridgeOf(peer: PodPeer): Readonly<Record<string, unknown>> {
  return {
    type: 'bridge',
    bridge: `bench-${peer.toLowerCase().slice(0, 6)}`,
    isGateway: true,
    ipMasq: false,
    ipam: {
      type: 'host-local',
      dataDir: join(placesOf(peer).run, 'ipam'),
      ranges: [[{ subnet: SUBNETS[peer] }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  }
}

/** What a plugin reads on its standard input. */
export function pluginInput(peer: PodPeer): string {
  return JSON.stringify({ cniVersion: CNI_VERSION, name: 'bench', ...bridgeOf(peer) })
}

/** @returns the configuration directory that a daemon is given */
export function writeNetworkConfig(peer: PodPeer): string {
  const directory = join(placesOf(peer).run, 'net.d')
  mkdirSync(directory, { recursive: true })
  const list = { cniVersion: CNI_VERSION, name: 'bench', plugins: [bridgeOf(peer)] }
  writeFileSync(join(directory, '10-bench.conflist'), JSON.stringify(list))
  return directory
}
