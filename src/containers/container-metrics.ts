import type { Container } from '../model/container.ts'
import type { Metric } from '../model/metrics.ts'
import type { Pod } from '../model/pod.ts'
import type { DiskUsage } from '../model/usage.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import { fsUsage } from '../os/files.ts'
import { openDescriptors, softLimitOfFiles } from '../os/processes.ts'
import { type GroupReading, groupMetrics, type Sampler, samplerFor } from './group-metrics.ts'
import { METRICS as M } from './metric-table.ts'

export type ContainerMetricsOptions = {
  readonly cgroups: Pick<Cgroups, 'stats' | 'applied' | 'oomKills' | 'hugetlb' | 'pids'>
  /** Usage of a container's writable layer. */
  readonly writable: (id: string) => DiskUsage
}

/** What the kernel counts for a group; undefined if there is none (any more). */
export function readGroup(
  cgroups: ContainerMetricsOptions['cgroups'],
  path: string,
): GroupReading | undefined {
  const stats = cgroups.stats(path)
  if (stats === undefined) return undefined
  return {
    stats,
    limits: cgroups.applied(path),
    oomKills: cgroups.oomKills(path),
    hugetlb: cgroups.hugetlb(path),
    processes: cgroups.pids(path).length,
  }
}

/** All metrics of a running container; none if it has ended meanwhile. */
export async function containerMetrics(
  { cgroups, writable }: ContainerMetricsOptions,
  pod: Pod,
  container: Container,
): Promise<Metric[]> {
  const reading = readGroup(cgroups, container.cgroup)
  if (reading === undefined) return []
  const { name, namespace } = pod.config.metadata
  const sample = samplerFor([
    container.cgroup,
    container.id,
    container.imageName,
    container.config.metadata.name,
    name,
    namespace,
  ])
  const { files, sockets } = await openDescriptors(cgroups.pids(container.cgroup))
  const soft = container.init === undefined ? undefined : softLimitOfFiles(container.init.pid)
  return [
    ...groupMetrics(sample, reading),
    ...sample(M.startTime, container.startedAt / 1_000_000_000n),
    ...sample(M.fileDescriptors, files),
    ...sample(M.sockets, sockets),
    ...sample(M.ulimitsSoft, soft, 'max_open_files'),
    ...diskMetrics(sample, writable(container.id)),
  ]
}

function diskMetrics(sample: Sampler, { mountpoint, usedBytes }: DiskUsage): Metric[] {
  const { bytesTotal, inodesTotal, inodesFree } = fsUsage(mountpoint)
  return [
    ...sample(M.fsUsage, usedBytes, mountpoint),
    ...sample(M.fsLimit, bytesTotal, mountpoint),
    ...sample(M.fsInodesTotal, inodesTotal, mountpoint),
    ...sample(M.fsInodesFree, inodesFree, mountpoint),
  ]
}
