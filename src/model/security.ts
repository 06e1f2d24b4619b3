/** Parts of pod and container configuration that both share. */

/** As the client sent it: '' means the configured default. */
export type CgroupParent = string

export type IdMapping = { readonly containerId: number; readonly hostId: number; readonly length: number }

export type SeccompProfile =
  | { readonly kind: 'runtime-default' }
  | { readonly kind: 'unconfined' }
  | { readonly kind: 'localhost'; readonly path: string }

export type AppArmorProfile =
  | { readonly kind: 'runtime-default' }
  | { readonly kind: 'unconfined' }
  | { readonly kind: 'localhost'; readonly name: string }

export type SelinuxOptions = {
  readonly user: string
  readonly role: string
  readonly type: string
  readonly level: string
}

/**
 * CRI LinuxContainerResources. int64 on the wire, numbers here: every value is far below 2⁵³ or clamped to it
 * (memory limits of 2⁶³−1 mean "no limit"). 0 means "not set" or, in an update, "unchanged".
 */
export type LinuxResources = {
  readonly cpuPeriod: number
  readonly cpuQuota: number
  readonly cpuShares: number
  /** bytes */
  readonly memoryLimit: number
  /** bytes, memory and swap together; -1 is unlimited */
  readonly memorySwapLimit: number
  readonly oomScoreAdj: number
  readonly cpusetCpus: string
  readonly cpusetMems: string
  readonly hugepageLimits: ReadonlyArray<{ readonly pageSize: string; readonly limit: number }>
  /** cgroup v2 files and values, verbatim. */
  readonly unified: Readonly<Record<string, string>>
}
