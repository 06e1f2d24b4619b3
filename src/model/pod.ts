import type { Dict } from '../base/dict.ts'
import type {
  AppArmorProfile,
  CgroupParent,
  IdMapping,
  LinuxResources,
  SeccompProfile,
  SelinuxOptions,
} from './security.ts'

/** What makes a pod sandbox unique among the living (CRI PodSandboxMetadata). */
export type PodMetadata = {
  readonly name: string
  readonly uid: string
  readonly namespace: string
  readonly attempt: number
}

/**
 * Where a pod row stands. `creating` and `removing` are journal entries: after a crash the first is undone, the
 * second finished. `notready` is final: no pod ever goes back to `ready`.
 */
export type PodPhase = 'creating' | 'ready' | 'notready' | 'removing'

/** CRI NamespaceMode. `target` only exists for PID namespaces of ephemeral containers. */
export type NamespaceMode = 'pod' | 'container' | 'node' | 'target'

export type NamespaceOptions = {
  readonly network: NamespaceMode
  readonly pid: NamespaceMode
  readonly ipc: NamespaceMode
  /** The container whose PID namespace is joined, with mode `target`. */
  readonly targetId: string
  /** undefined: the request named no user namespace at all. */
  readonly user?: UserNamespace
}

export type UserNamespace = {
  readonly mode: NamespaceMode
  readonly uids: readonly IdMapping[]
  readonly gids: readonly IdMapping[]
}

/** The user namespace of a pod's own: one mapping of each kind, from id 0 on. undefined: the pod has the node's. */
export type PodUser = { readonly uid: IdMapping; readonly gid: IdMapping }

export function podUserOf({ user }: NamespaceOptions): PodUser | undefined {
  if (user?.mode !== 'pod') return undefined
  const [[uid], [gid]] = [user.uids, user.gids]
  return uid === undefined || gid === undefined ? undefined : { uid, gid }
}

export type PortMapping = {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly containerPort: number
  /** 0: no host port. */
  readonly hostPort: number
  readonly hostIp: string
}

export type DnsConfig = {
  readonly servers: readonly string[]
  readonly searches: readonly string[]
  readonly options: readonly string[]
}

/** A validated PodSandboxConfig. Everything is as the client sent it; nothing is defaulted but absent messages. */
export type PodConfig = {
  readonly metadata: PodMetadata
  readonly hostname: string
  /** '' or an absolute, clean path. */
  readonly logDirectory: string
  readonly dns?: DnsConfig
  readonly portMappings: readonly PortMapping[]
  readonly labels: Dict
  readonly annotations: Dict
  readonly cgroupParent: CgroupParent
  readonly sysctls: Dict
  readonly namespaces: NamespaceOptions
  readonly privileged: boolean
  readonly readonlyRootfs: boolean
  readonly runAsUser?: number
  readonly runAsGroup?: number
  readonly supplementalGroups: readonly number[]
  readonly supplementalGroupsPolicy: 'merge' | 'strict'
  /** undefined: unconfined. */
  readonly seccomp?: SeccompProfile
  readonly apparmor?: AppArmorProfile
  readonly selinux?: SelinuxOptions
  readonly overhead?: LinuxResources
  readonly resources?: LinuxResources
}

/** What CNI answered, kept until DEL succeeded. */
export type PodNetwork = {
  /** First address is the pod IP. Empty for host network. */
  readonly ips: readonly string[]
  /** The raw result JSON of the last plugin and the network list that produced it, for CHECK and DEL. */
  readonly attachment?: CniAttachment | undefined
}

export type CniAttachment = {
  readonly networkName: string
  /** The configuration list (parsed JSON) as it was at ADD: DEL must use that one. */
  readonly config: unknown
  readonly result: unknown
  readonly ifName: string
  readonly capabilityArgs: unknown
}

/** A process by what identifies it: the pid alone is reused. `startTime` is field 22 of /proc/PID/stat (ticks). */
export type ProcessRef = { readonly pid: number; readonly startTime: string }

export type Pod = {
  readonly id: string
  readonly config: PodConfig
  /** Handler name as requested; '' is the default. */
  readonly runtimeHandler: string
  readonly phase: PodPhase
  readonly createdAt: bigint
  /** Boot id of the node when the pod was made: another one now means its namespaces are gone. */
  readonly bootId: string
  /** The cgroup below which its containers go (absolute inside the hierarchy). */
  readonly cgroup: string
  /** True from before CNI ADD until DEL succeeded: an address may be held. */
  readonly networkHeld: boolean
  readonly network: PodNetwork
  /** The init process of a shared PID namespace. */
  readonly init?: ProcessRef
  /**
   * The SELinux level that tells it from every other living pod, unless its configuration names one; '' under a policy
   * without levels. undefined: it was made without SELinux.
   */
  readonly selinuxLevel?: string
  /** The answer reached a client; a retry of the same key is then a duplicate, not a join. */
  readonly delivered: boolean
}

/** The unique key of a pod: retries of RunPodSandbox join on it. */
export function podKey(m: PodMetadata): string {
  return [m.namespace, m.name, m.uid, String(m.attempt)].join('\0')
}

/** `default/web (attempt 2)`: how a pod is called in messages. */
export function podName(m: PodMetadata): string {
  const attempt = m.attempt === 0 ? '' : ` (attempt ${m.attempt})`
  return `${m.namespace}/${m.name}${attempt}`
}
