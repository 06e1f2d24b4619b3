import { setImmediate } from 'node:timers/promises'
import { nowNs } from '../base/clock.ts'
import type { Container, ContainerPhase } from '../model/container.ts'
import type { ContainerStats, DiskUsage } from '../model/usage.ts'
import type { Log } from '../observe/log.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import type { Catalog } from '../state/catalog.ts'
import type { Snapshots } from '../storage/snapshots.ts'
import { CgroupMeter } from './cgroup-meter.ts'
import { WritableUsage } from './writable-usage.ts'

export type ContainerStatsOptions = {
  readonly catalog: Pick<Catalog, 'container'>
  readonly cgroups: Pick<Cgroups, 'stats'>
  readonly snapshots: Pick<Snapshots, 'upperPath'>
  /** An existing directory on the file system of the writable layers; the one that ImageFsInfo names. */
  readonly mountpoint: string
  readonly log: Log
}

/** A container's figures and its number of processes, for the sum of its pod. */
export type ContainerReading = { readonly stats: ContainerStats; readonly processes: bigint }

const WITH_PROCESSES: ReadonlySet<ContainerPhase> = new Set(['created', 'running', 'unknown'])

// 16 × 0.15 ms: what a long list may hold up other calls.
const READINGS_PER_TURN = 16

/** What containers use, straight from the kernel. */
export class ContainerStatsReader {
  readonly #catalog: Pick<Catalog, 'container'>
  readonly #meter: CgroupMeter
  readonly #writable: WritableUsage

  constructor({ catalog, cgroups, snapshots, mountpoint, log }: ContainerStatsOptions) {
    this.#catalog = catalog
    this.#meter = new CgroupMeter(cgroups)
    this.#writable = new WritableUsage({ upperPath: id => snapshots.upperPath(id), mountpoint, log })
  }

  /** Of a container in the catalog. Without processor and memory figures if it has no processes (any more). */
  of(container: Container): ContainerStats {
    return this.read(container).stats
  }

  /** Of those that are still there when their turn comes; other work gets done in between. */
  async ofAll(containers: readonly Container[]): Promise<ContainerStats[]> {
    const all: ContainerStats[] = []
    for (const [i, { id }] of containers.entries()) {
      if (i > 0 && i % READINGS_PER_TURN === 0) await setImmediate()
      const container = this.#catalog.container(id)
      if (container !== undefined) all.push(this.of(container))
    }
    return all
  }

  read(container: Container): ContainerReading {
    const { id, phase, cgroup } = container
    const usage = WITH_PROCESSES.has(phase) ? this.#meter.read(id, cgroup) : undefined
    const { timestamp = nowNs(), cpu, memory, swap, io, processes = 0n } = usage ?? {}
    const writable = this.#writable.of(id)
    return { stats: { container, timestamp, cpu, memory, swap, io, writable }, processes }
  }

  /** Of its writable layer, as of the last walk. */
  writable(id: string): DiskUsage {
    return this.#writable.of(id)
  }

  /** For a container that leaves the catalog. */
  forget(id: string): void {
    this.#meter.forget(id)
    this.#writable.forget(id)
  }
}
