import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CriPeer } from './cri-peer.ts'
import { PATH } from './handlers.ts'
import { PLUGIN_DIR, writeNetworkConfig } from './network.ts'
import type { Handler } from './peer.ts'
import { placesOf, ROOT } from './places.ts'

/** Berth with its default settings, in places of its own. */
export function berth(handlers: ReadonlyMap<Handler, string>, image: string): CriPeer {
  const { data, run } = placesOf('Berth')
  mkdirSync(run, { recursive: true })
  mkdirSync(data, { recursive: true })
  const socket = join(run, 'b.sock')
  const config = join(run, 'berth.conf')
  const registries = join(run, 'registries.conf')
  writeFileSync(config, '')
  writeFileSync(registries, `[[registry]]\nlocation = "${image.split('/')[0]}"\ninsecure = true\n`)
  const args = ['daemon', '--config', config, '--root', data, '--runroot', run, '--listen', socket]
  args.push('--cni-config-dir', writeNetworkConfig('Berth'), '--cni-plugin-dir', PLUGIN_DIR)
  args.push('--registries-conf', registries, '--registries-conf-dir', join(run, 'registries.conf.d'))
  for (const [name, program] of handlers) args.push('--runtimes', `${name}:${program}`)
  return new CriPeer({
    name: 'Berth',
    file: join(ROOT, 'bin/berth'),
    args,
    env: { PATH },
    socket,
    log: join(data, 'daemon.log'),
    image,
    helpers: line => line.includes('conmon') && line.includes(run),
  })
}
