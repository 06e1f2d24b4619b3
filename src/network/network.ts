import type { Difference } from '../model/difference.ts'
import type { PodMetadata, PodNetwork, PortMapping } from '../model/pod.ts'

/** What every verb needs to name the attachment of one pod. */
export type NetworkTarget = {
  readonly podId: string
  readonly metadata: PodMetadata
  /** Path of the pinned network namespace, or '' when it is gone (DEL only). */
  readonly netns: string
  readonly portMappings: readonly PortMapping[]
  /** From the `kubernetes.io/{ingress,egress}-bandwidth` annotations, bits per second. */
  readonly bandwidth?: { readonly ingress?: number; readonly egress?: number }
}

export type NetworkStatus = {
  readonly ready: boolean
  /** CamelCase, for the NetworkReady condition; '' when ready. */
  readonly reason: string
  readonly message: string
  /** The configuration in use: file and network name. */
  readonly source?: { readonly file: string; readonly name: string }
}

/** A pod that an address may be held for. */
export type NetworkMember = {
  readonly target: NetworkTarget
  readonly network: PodNetwork
  /** It is complete, and nothing is being done with it: what belongs to it has to be there. */
  readonly isSettled: boolean
}

/** Attaches pods to the node's network. Implemented by CNI (specification 1.1). */
export interface Network {
  status(): NetworkStatus
  /**
   * ADD. When it throws the caller must still detach: any plugin of the chain may have run.
   * @throws BerthError unavailable without a usable configuration, deadline after the verb's time limit
   */
  attach(target: NetworkTarget, signal?: AbortSignal): Promise<PodNetwork>
  /**
   * DEL, by the configuration and result of the ADD when there is one, else by the present configuration.
   * Succeeds when there is nothing left to detach; may be called again and without a namespace.
   */
  detach(target: NetworkTarget, network: PodNetwork | undefined): Promise<void>
  /**
   * Whether the pod's namespace may be destroyed before `detach`, which is then called with netns '': several times
   * quicker, but only networks known to leave nothing behind on the host that way allow it.
   */
  canDetachWithoutNamespace(network: PodNetwork): boolean
  /**
   * CHECK: whether the attachment is still as ADD left it. Nothing happens before specification 0.4.0 or when the
   * configuration disables it.
   * @throws BerthError saying what a plugin found wrong
   */
  check(target: NetworkTarget, network: PodNetwork): Promise<void>
  /**
   * Detaches pods that were attached once and are not among the living, and tells plugins of specification 1.1 (GC)
   * who is. `living`: every pod whose DEL has not succeeded.
   * @throws BerthError unavailable when attachments keep coming; otherwise what plugins said
   */
  collectGarbage(living: ReadonlyArray<{ readonly podId: string; readonly ifName: string }>): Promise<void>
  /**
   * Compares what is on the host (the journal of attachments, leases of `host-local`, rules of `iptables`, what
   * plugins say to CHECK) with who holds an address.
   * @param members every pod whose DEL has not succeeded
   */
  differences(members: readonly NetworkMember[]): Promise<Difference[]>
  close(): void
}
