import { readFileSync, statSync } from 'node:fs'
import { nowNs } from '../base/clock.ts'
import { errnoOf, messageOf } from '../base/errors.ts'
import type { NodePaths } from '../config/paths.ts'
import type { Pod } from '../model/pod.ts'
import type { PodStats } from '../model/usage.ts'
import type { Log } from '../observe/log.ts'
import type { NamespacePins } from '../os/namespaces.ts'
import { type InterfaceCounters, parseNetDev } from '../os/net-dev.ts'
import type { Catalog } from '../state/catalog.ts'

/** CNI's own default, for a pod whose attachment is not known. */
const DEFAULT_INTERFACE = 'eth0'

/**
 * Counters of the network namespace pinned at `netns`, seen through one of `pids`; undefined if none of them is in
 * that namespace: a privileged process may have left it, and a pid may be another's by now.
 */
export function countersThrough(pids: readonly number[], netns: string): InterfaceCounters[] | undefined {
  const namespace = inodeOf(netns)
  if (namespace === undefined) return undefined
  for (const pid of pids) {
    if (inodeOf(`/proc/${pid}/ns/net`) !== namespace) continue
    const text = ifThere(() => readFileSync(`/proc/${pid}/net/dev`, 'utf8'))
    if (text !== undefined) return parseNetDev(text)
  }
  return undefined
}

function inodeOf(namespace: string): number | undefined {
  return ifThere(() => statSync(namespace).ino)
}

function ifThere<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    // ESRCH, EINVAL: the process is just ending. EACCES: one that the daemon may not look into.
    if (['ENOENT', 'ESRCH', 'EINVAL', 'EACCES'].includes(errnoOf(error) ?? '')) return undefined
    throw error
  }
}

export type PodNetworkOptions = {
  readonly catalog: Pick<Catalog, 'containersOf'>
  readonly namespaces: Pick<NamespacePins, 'interfaceCounters'>
  readonly paths: NodePaths
  readonly log: Log
}

/** Counters of the interfaces of pods. */
export class PodNetworkReader {
  readonly #options: PodNetworkOptions

  constructor(options: PodNetworkOptions) {
    this.#options = options
  }

  /** undefined for a pod in the node's network, or without one (any more). */
  async countersOf(pod: Pod): Promise<InterfaceCounters[] | undefined> {
    if (pod.phase !== 'ready' || pod.config.namespaces.network === 'node') return undefined
    const { catalog, namespaces, paths, log } = this.#options
    const netns = paths.pod(pod.id).namespace('net')
    const running = catalog.containersOf(pod.id).filter(({ phase }) => phase === 'running')
    const pids = [pod, ...running].flatMap(({ init }) => (init === undefined ? [] : [init.pid]))
    try {
      return countersThrough(pids, netns) ?? (await namespaces.interfaceCounters(netns))
    } catch (error) {
      // A pod being stopped has no namespace any more; its other figures are as good as ever.
      log.debug({ podId: pod.id, error: messageOf(error) }, 'the network of a pod cannot be read')
      return undefined
    }
  }
}

/** Without loopback. undefined if the pod's own interface is not among them. */
export function networkUsage(
  counters: readonly InterfaceCounters[],
  podInterface = DEFAULT_INTERFACE,
): PodStats['network'] {
  const defaultInterface = counters.find(({ name }) => name === podInterface)
  if (defaultInterface === undefined) return undefined
  const interfaces = counters.filter(({ name }) => name !== podInterface && name !== 'lo')
  return { timestamp: nowNs(), defaultInterface, interfaces }
}
