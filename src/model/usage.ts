import type { Container } from './container.ts'
import type { Pod } from './pod.ts'

/*
 * Usage figures as the interface shows them. Every part has the time of its own sample in ns; sizes are bytes; an
 * undefined number was not measured.
 */

export type PsiData = {
  readonly totalNs: bigint
  /** Percent. */
  readonly avg10: number
  readonly avg60: number
  readonly avg300: number
}

/** Pressure stall information of a cgroup v2. */
export type Psi = { readonly full: PsiData; readonly some: PsiData }

export type CpuUsage = {
  readonly timestamp: bigint
  readonly usageNs: bigint
  readonly nanoCores?: bigint | undefined
  readonly psi?: Psi | undefined
}

export type MemoryUsage = {
  readonly timestamp: bigint
  readonly workingSet: bigint
  readonly available?: bigint | undefined
  readonly usage: bigint
  readonly rss: bigint
  readonly pageFaults: bigint
  readonly majorPageFaults: bigint
  readonly psi?: Psi | undefined
}

export type SwapUsage = {
  readonly timestamp: bigint
  readonly available?: bigint | undefined
  readonly usage: bigint
}

export type IoUsage = { readonly timestamp: bigint; readonly psi: Psi }

export type DiskUsage = {
  readonly timestamp: bigint
  readonly mountpoint: string
  readonly usedBytes: bigint
  readonly inodesUsed: bigint
}

export type ContainerStats = {
  readonly container: Container
  readonly timestamp: bigint
  readonly cpu?: CpuUsage | undefined
  readonly memory?: MemoryUsage | undefined
  readonly swap?: SwapUsage | undefined
  readonly io?: IoUsage | undefined
  readonly writable: DiskUsage
}

export type InterfaceUsage = {
  readonly name: string
  readonly rxBytes: bigint
  readonly rxErrors: bigint
  readonly txBytes: bigint
  readonly txErrors: bigint
}

export type PodStats = {
  readonly pod: Pod
  readonly timestamp: bigint
  readonly cpu?: CpuUsage | undefined
  readonly memory?: MemoryUsage | undefined
  readonly io?: IoUsage | undefined
  /** `interfaces` is without the default one. */
  readonly network?:
    | {
        readonly timestamp: bigint
        readonly defaultInterface: InterfaceUsage
        readonly interfaces: readonly InterfaceUsage[]
      }
    | undefined
  readonly processCount: bigint
  readonly containers: readonly ContainerStats[]
}
