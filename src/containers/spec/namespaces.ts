import { internal } from '../../base/errors.ts'
import type { OciIdMapping, OciLinux, OciNamespaceType } from '../../model/oci.ts'
import { podUserOf } from '../../model/pod.ts'
import type { IdMapping } from '../../model/security.ts'
import type { SpecInput } from './spec.ts'

type Namespace = { type: OciNamespaceType; path?: string }

/**
 * A mount namespace of its own, a PID namespace by mode, and the pod's others by path. No `hostname`: the pinned UTS
 * namespace has it, and the node's must not be changed.
 */
export function buildNamespaces(input: SpecInput): Pick<OciLinux, 'namespaces'> {
  const { config, pod, podPaths, host } = input
  const modes = config.security.namespaces
  const list: Namespace[] = [{ type: 'mount' }]
  if (modes.pid === 'container') list.push({ type: 'pid' })
  else if (modes.pid !== 'node') list.push(joined('pid', podPaths.pidns))
  if (modes.network !== 'node') list.push(joined('network', podPaths.netns))
  if (modes.ipc !== 'node') list.push(joined('ipc', podPaths.ipcns))
  if (podPaths.utsns !== undefined) list.push(joined('uts', podPaths.utsns))
  // On v2 a container sees its own cgroup as the root; a privileged one manages the node's.
  if (host.cgroupVersion === 2 && !config.security.privileged) list.push({ type: 'cgroup' })

  // One that is joined has its mappings already; runtimes object to being told them again.
  if (podUserOf(pod.namespaces) !== undefined) list.push(joined('user', podPaths.userns))
  return { namespaces: list }
}

export function ociMapping({ containerId, hostId, length }: IdMapping): OciIdMapping {
  return { containerID: containerId, hostID: hostId, size: length }
}

function joined(type: OciNamespaceType, path: string | undefined): Namespace {
  if (path === undefined) throw internal(`the pod has no ${type} namespace to join`)
  return { type, path }
}
