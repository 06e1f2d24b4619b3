import { type PodState, podStateOf } from '../../containers/container-state.ts'
import type { Pod, PodMetadata } from '../../model/pod.ts'
import type { PodSandbox } from '../generated/runtime/v1/PodSandbox.ts'
import type { PodSandboxMetadata } from '../generated/runtime/v1/PodSandboxMetadata.ts'
import type { PodSandboxState } from '../generated/runtime/v1/PodSandboxState.ts'
import type { PodSandboxStatus } from '../generated/runtime/v1/PodSandboxStatus.ts'
import { fromNamespaces } from './security.ts'

const STATES: Readonly<Record<PodState, PodSandboxState>> = {
  ready: 'SANDBOX_READY',
  notready: 'SANDBOX_NOTREADY',
}

/** undefined for a pod that is still being made: nobody has its id yet. */
export function fromPod(pod: Pod): PodSandbox | undefined {
  const state = podStateOf(pod)
  if (state === undefined) return undefined
  return {
    id: pod.id,
    metadata: fromPodMetadata(pod.config.metadata),
    state: STATES[state],
    created_at: String(pod.createdAt),
    labels: pod.config.labels,
    annotations: pod.config.annotations,
    runtime_handler: pod.runtimeHandler,
  }
}

export function fromPodStatus(pod: Pod, state: PodState): PodSandboxStatus {
  const [ip, ...additional] = pod.network.ips
  return {
    id: pod.id,
    metadata: fromPodMetadata(pod.config.metadata),
    state: STATES[state],
    created_at: String(pod.createdAt),
    network: { ip: ip ?? '', additional_ips: additional.map(address => ({ ip: address })) },
    linux: { namespaces: { options: fromNamespaces(pod.config.namespaces) } },
    labels: pod.config.labels,
    annotations: pod.config.annotations,
    runtime_handler: pod.runtimeHandler,
  }
}

export function fromPodMetadata({ name, uid, namespace, attempt }: PodMetadata): PodSandboxMetadata {
  return { name, uid, namespace, attempt }
}
