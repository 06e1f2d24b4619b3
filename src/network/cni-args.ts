import { invalid } from '../base/errors.ts'
import type { JsonObject } from './json.ts'
import type { NetworkTarget } from './network.ts'

/** The interface inside the pod. Kubernetes tools look for this name. */
export const POD_INTERFACE = 'eth0'

// Kubernetes never limits the burst; the bandwidth plugin requires one with each rate. In bits.
const UNLIMITED_BURST = 2 ** 31 - 1

/**
 * `CNI_ARGS` of a pod: how plugins learn which Kubernetes object they serve.
 * @throws BerthError invalid for a name that would end its own pair and begin another (`x;IP=10.0.0.1`)
 */
export function cniArgs(target: NetworkTarget): string {
  const pairs = {
    IgnoreUnknown: '1',
    K8S_POD_NAMESPACE: target.metadata.namespace,
    K8S_POD_NAME: target.metadata.name,
    K8S_POD_INFRA_CONTAINER_ID: target.podId,
    K8S_POD_UID: target.metadata.uid,
  }
  for (const [name, value] of Object.entries(pairs)) {
    if (/[;=\x00-\x1f\x7f]/.test(value)) {
      throw invalid(
        `${name} in CNI_ARGS`,
        `expected no ";", "=" or control character, found ${JSON.stringify(value)}`,
      )
    }
  }
  return Object.entries(pairs)
    .map(([name, value]) => `${name}=${value}`)
    .join(';')
}

/** What the pod asks of plugins that declare the capability (CNI conventions: `portMappings`, `bandwidth`). */
export function capabilityArgs(target: NetworkTarget): JsonObject {
  const portMappings = target.portMappings
    .filter(mapping => mapping.hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      hostPort,
      containerPort,
      protocol,
      ...(hostIp === '' ? {} : { hostIP: hostIp }),
    }))
  const { ingress, egress } = target.bandwidth ?? {}
  const bandwidth = {
    ...(ingress === undefined ? {} : { ingressRate: ingress, ingressBurst: UNLIMITED_BURST }),
    ...(egress === undefined ? {} : { egressRate: egress, egressBurst: UNLIMITED_BURST }),
  }
  return {
    ...(portMappings.length > 0 ? { portMappings } : {}),
    ...(Object.keys(bandwidth).length > 0 ? { bandwidth } : {}),
  }
}
