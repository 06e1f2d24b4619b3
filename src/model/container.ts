import type { Dict } from '../base/dict.ts'
import type { NamespaceOptions, ProcessRef } from './pod.ts'
import type {
  AppArmorProfile,
  IdMapping,
  LinuxResources,
  SeccompProfile,
  SelinuxOptions,
} from './security.ts'

export type ContainerMetadata = { readonly name: string; readonly attempt: number }

/**
 * Where a container row stands. `creating` is undone after a crash, `removing` finished; of a `created` one the
 * runtime is asked whether it was started. `unknown`: the row or its process could not be read; Stop and Remove
 * still work.
 */
export type ContainerPhase = 'creating' | 'created' | 'running' | 'exited' | 'unknown' | 'removing'

export type Mount = {
  readonly containerPath: string
  /** '' with an image mount. */
  readonly hostPath: string
  readonly readonly: boolean
  readonly recursiveReadOnly: boolean
  readonly selinuxRelabel: boolean
  readonly propagation: 'private' | 'rslave' | 'rshared'
  readonly uidMappings: readonly IdMapping[]
  readonly gidMappings: readonly IdMapping[]
  /** An image mounted as a volume. */
  readonly image?: { readonly ref: string; readonly subPath: string }
}

export type Device = {
  readonly containerPath: string
  readonly hostPath: string
  readonly permissions: string
}

export type Capabilities = {
  readonly add: readonly string[]
  readonly drop: readonly string[]
  readonly addAmbient: readonly string[]
}

export type ContainerSecurity = {
  readonly capabilities: Capabilities
  readonly privileged: boolean
  readonly namespaces: NamespaceOptions
  readonly runAsUser?: number
  readonly runAsGroup?: number
  readonly runAsUsername: string
  readonly supplementalGroups: readonly number[]
  readonly supplementalGroupsPolicy: 'merge' | 'strict'
  readonly readonlyRootfs: boolean
  readonly noNewPrivs: boolean
  /** Verbatim, an empty list included; kubelet always fills them. */
  readonly maskedPaths: readonly string[]
  readonly readonlyPaths: readonly string[]
  readonly seccomp?: SeccompProfile
  readonly apparmor?: AppArmorProfile
  readonly selinux?: SelinuxOptions
}

/** A validated ContainerConfig. */
export type ContainerConfig = {
  readonly metadata: ContainerMetadata
  /** The image reference or id as requested. */
  readonly image: string
  readonly userSpecifiedImage: string
  readonly command: readonly string[]
  readonly args: readonly string[]
  readonly workingDir: string
  /** In the client's order. Values are bytes on the wire; kept as UTF-8 text. */
  readonly envs: ReadonlyArray<readonly [string, string]>
  readonly mounts: readonly Mount[]
  readonly devices: readonly Device[]
  readonly cdiDevices: readonly string[]
  readonly labels: Dict
  readonly annotations: Dict
  /** Relative to the pod's log directory; '' is no log. */
  readonly logPath: string
  readonly stdin: boolean
  readonly stdinOnce: boolean
  readonly tty: boolean
  readonly resources?: LinuxResources
  readonly security: ContainerSecurity
  /** Signal name (`SIGTERM`), '' for the image's or the default. */
  readonly stopSignal: string
}

export type ExitReason =
  | 'Completed'
  | 'Error'
  | 'OOMKilled'
  | 'StartError'
  | 'Unknown'
  | 'MonitorLost'
  | 'NodeReboot'

export type ContainerExit = {
  readonly code: number
  readonly reason: ExitReason
  readonly message: string
  readonly finishedAt: bigint
}

/** The user that the first process got (CRI ContainerUser). */
export type EffectiveUser = {
  readonly uid: number
  readonly gid: number
  readonly supplementalGroups: readonly number[]
}

export type Container = {
  readonly id: string
  readonly podId: string
  readonly config: ContainerConfig
  readonly phase: ContainerPhase
  readonly createdAt: bigint
  readonly startedAt: bigint
  readonly exit?: ContainerExit
  /** Config digest of the image: Image.id everywhere. */
  readonly imageId: string
  /** `repo@digest` where known, else the id. */
  readonly imageRef: string
  /** What ContainerStatus.image.image shows: the tag or what the user asked for; never ''. */
  readonly imageName: string
  /** Images that are mounted as volumes: config digest by container path. */
  readonly imageMounts: Dict
  /** '' or an absolute path. */
  readonly logPath: string
  /** Path in the cgroup hierarchy. */
  readonly cgroup: string
  readonly init?: ProcessRef
  readonly monitor?: ProcessRef
  readonly user: EffectiveUser
  /** The signal that StopContainer sends first. */
  readonly stopSignal: string
  /** What is in force now: the request's, then each update's. */
  readonly resources?: LinuxResources
  readonly delivered: boolean
}

export function containerKey(podId: string, m: ContainerMetadata): string {
  return [podId, m.name, String(m.attempt)].join('\0')
}
