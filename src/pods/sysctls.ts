import { type Dict, dict } from '../base/dict.ts'
import type { PodConfig } from '../model/pod.ts'

/** Sysctls of the IPC namespace (ipc_namespaces(7)); `net.` ones are the network's, every other is the node's. */
const IPC = /^(kernel\.(shm.*|msg.*|sem)|fs\.mqueue\..*)$/

/**
 * What is written inside the pod's new namespaces: the configured defaults as far as they belong to a namespace that
 * the pod has for itself, then the request's, which was checked for that before.
 */
export function sysctlsOf(defaults: Dict, config: PodConfig): Dict {
  const { network, ipc } = config.namespaces
  const own = Object.entries(defaults).filter(([name]) =>
    name.startsWith('net.') ? network !== 'node' : IPC.test(name) && ipc !== 'node',
  )
  return dict([...own, ...Object.entries(config.sysctls)])
}
