import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import { namesIn } from '../os/files.ts'
import type { CniNetwork } from './cni-config.ts'
import { isJsonObject } from './json.ts'

/** Where the plugin keeps its leases unless its configuration says otherwise. */
const DEFAULT_DIR = '/var/lib/cni/networks'

/** An address as `host-local` has given it away: a file named by it. */
export type Lease = {
  readonly address: string
  readonly file: string
  /** The pod's id. */
  readonly holder: string
}

/** Directories in which the address plugin `host-local` keeps the leases of a network; none if it does not use it. */
export function leaseDirs(network: CniNetwork): string[] {
  return network.plugins.flatMap(({ json, ipamType }) => {
    const dataDir = isJsonObject(json.ipam) && json.ipam.dataDir
    if (ipamType !== 'host-local') return []
    return [join(typeof dataDir === 'string' && dataDir !== '' ? dataDir : DEFAULT_DIR, network.name)]
  })
}

export function leasesIn(directory: string): Lease[] {
  return namesIn(directory)
    .filter(name => isIP(name) !== 0)
    .flatMap(address => {
      const file = join(directory, address)
      const holder = textOf(file)?.split(/\r?\n/, 1)[0]?.trim()
      return holder === undefined ? [] : [{ address, file, holder }]
    })
}

/**
 * Writes a lease again as the plugin does.
 * @throws EEXIST if somebody has the address
 */
export function restoreLease(directory: string, address: string, podId: string, ifName: string): void {
  const file = join(directory, address)
  effectSync('network', 'restore-lease', file, () =>
    writeFileSync(file, `${podId}\r\n${ifName}`, { flag: 'wx', mode: 0o600 }),
  )
}

/** Gives the address back, if the pod still has it. */
export function dropLease({ file, holder }: Lease): void {
  if (textOf(file)?.startsWith(holder) !== true) return
  effectSync('network', 'drop-lease', file, () => rmSync(file, { force: true }))
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
