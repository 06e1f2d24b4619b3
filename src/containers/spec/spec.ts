import type { ContainerConfig, EffectiveUser, Mount } from '../../model/container.ts'
import type { ImageConfig } from '../../model/image.ts'
import type { PodConfig } from '../../model/pod.ts'
import type { RlimitName } from '../../os/node.ts'
import type { RuntimeFeatures } from '../../runtime/runtime.ts'
import type { SeccompRules } from './seccomp-profile.ts'

/**
 * Everything an OCI spec is made of. Whatever needs a file, the kernel or the clock was looked up before, so that
 * the spec is a function of this value alone.
 */
export type SpecInput = {
  readonly containerId: string
  readonly config: ContainerConfig
  readonly podId: string
  readonly pod: PodConfig
  /** The host name inside the pod's UTS namespace: the pod's, or the node's. */
  readonly hostname: string
  readonly image: ImageConfig
  /** The image as people name it, for an annotation. */
  readonly imageName: string
  readonly rootfs: string
  readonly podPaths: PodPaths
  readonly user: ProcessUser
  readonly host: HostFacts
  readonly defaults: SpecDefaults
  readonly features: RuntimeFeatures
  /** Absolute with cgroupfs, `slice:prefix:id` with systemd. */
  readonly cgroupsPath: string
  readonly mounts: readonly ResolvedMount[]
  /** The requested devices, directories expanded (see host-devices.ts). */
  readonly devices: readonly HostDevice[]
  /** Without SELinux there are none. A process without one of its own has what the policy gives it. */
  readonly selinux?: { readonly process: string; readonly mount: string }
  /** The file of a localhost seccomp profile, read and checked. */
  readonly localhostSeccomp?: SeccompRules
  /** Told about each wish that this node cannot grant and that was cut down or left out, for the log. */
  readonly notice: (message: string) => void
}

/** Where the pod's parts are. A namespace that is not there is shared with the node. */
export type PodPaths = {
  readonly netns?: string
  readonly ipcns?: string
  readonly utsns?: string
  /** The shared PID namespace of mode POD, or that of the container that mode TARGET joins. */
  readonly pidns?: string
  readonly userns?: string
  readonly shmPath: string
  readonly resolvConfPath: string
  readonly hostnamePath: string
  /** kubelet brings its own /etc/hosts as a mount; this one is for clients that don't. */
  readonly hostsPath?: string
}

/** `supplementalGroups` holds the primary group too. */
export type ProcessUser = EffectiveUser & { readonly home: string }

/** What the daemon itself has: nothing beyond it can be given to a container. */
export type HostFacts = {
  /** Names with prefix (`CAP_CHOWN`) of the daemon's bounding set. */
  readonly capabilities: readonly string[]
  readonly oomScoreAdj: number
  /** The daemon's own hard limit; 2⁶⁴−1 is unlimited. */
  readonly hardLimit: (name: RlimitName) => bigint
  readonly cgroupVersion: 1 | 2
  /** The memory controller counts swap (v1: memory.memsw.*, v2: memory.swap.*). */
  readonly swapAccounting: boolean
  /** The sizes of huge pages that control groups count (`2MB`); none without the controller. */
  readonly hugepageSizes: readonly string[]
  readonly apparmor: boolean
  readonly seccomp: boolean
  readonly arch: 'amd64' | 'arm64'
  /**
   * The kernel takes system calls of the x32 ABI (number + 0x40000000); few distributions build it in. Where it does
   * not, leaving x32 out of seccomp filters makes create and exec quicker.
   */
  readonly x32: boolean
  /** `6.1.0-18-amd64` */
  readonly kernel: string
  /** Every device of the node, for privileged containers. */
  readonly devices: readonly HostDevice[]
}

export type HostDevice = {
  readonly path: string
  readonly type: 'c' | 'b'
  readonly major: number
  readonly minor: number
  /** Permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Subset of `rwm`. */
  readonly access: string
}

/** JSON has no room for 2⁶⁴−1: `RLIM_INFINITY` as -1. */
export type Rlimit = { readonly type: RlimitName; readonly soft: number; readonly hard: number }

/** The configuration's part. */
export type SpecDefaults = {
  /** With or without `CAP_`. */
  readonly capabilities: readonly string[]
  readonly rlimits: readonly Rlimit[]
  /** 0 or less is no limit. */
  readonly pidsLimit: number
  /** `NAME=value` */
  readonly env: readonly string[]
  readonly seccomp: SeccompRules
  /** A profile that is loaded in the kernel; '' is none. */
  readonly apparmorProfile: string
  /** Pod and container annotations that the handler may see, by exact key. */
  readonly allowedAnnotations: readonly string[]
}

export type ResolvedMount = {
  readonly mount: Mount
  /** The source with every symlink resolved; of an image mount, the directory of its read-only view. */
  readonly source: string
  /** Propagation of the mount that the source lies on. */
  readonly shared: boolean
  readonly slave: boolean
}
