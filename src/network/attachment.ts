import { inStep } from '../base/errors.ts'
import type { CniAttachment } from '../model/pod.ts'
import { capabilityArgs, POD_INTERFACE } from './cni-args.ts'
import type { ChainTarget } from './cni-chain.ts'
import { type CniNetwork, parseNetwork } from './cni-config.ts'
import { isJsonObject } from './json.ts'
import type { NetworkTarget } from './network.ts'

/** What is known before ADD has a result. */
export function newAttachment(network: CniNetwork, target: NetworkTarget): CniAttachment {
  return {
    networkName: network.name,
    config: network.json,
    result: null,
    ifName: POD_INTERFACE,
    capabilityArgs: capabilityArgs(target),
  }
}

/** The network as it was at ADD. */
export function networkOf(attachment: CniAttachment): CniNetwork {
  try {
    return parseNetwork(attachment.config)
  } catch (error) {
    throw inStep(`stored configuration of network ${JSON.stringify(attachment.networkName)}`, error)
  }
}

/** How plugins see a pod. */
export function chainTarget(
  podId: string,
  netns: string,
  args: string,
  attachment: CniAttachment,
): ChainTarget {
  const { ifName, capabilityArgs } = attachment
  const asked = isJsonObject(capabilityArgs) ? capabilityArgs : {}
  return { containerId: podId, netns, ifName, args, capabilityArgs: asked }
}
