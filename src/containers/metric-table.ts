import { type MetricDescriptor, OBJECT_LABELS } from '../model/metrics.ts'

const counter = describer('counter')
const gauge = describer('gauge')

/** Every metric there is; names and labels are those that cAdvisor's had, so that dashboards go on working. */
export const METRICS = {
  lastSeen: gauge('last_seen', 'When the container was last seen, seconds since 1970'),
  startTime: gauge('start_time_seconds', 'When the container was started, seconds since 1970'),

  cpuUsage: counter('cpu_usage_seconds_total', 'Processor time consumed, seconds', 'cpu'),
  cpuUser: counter('cpu_user_seconds_total', 'Processor time consumed in user mode, seconds'),
  cpuSystem: counter('cpu_system_seconds_total', 'Processor time consumed in the kernel, seconds'),
  cpuPeriods: counter('cpu_cfs_periods_total', 'Enforcement periods that have passed'),
  cpuThrottledPeriods: counter('cpu_cfs_throttled_periods_total', 'Enforcement periods with throttling'),
  cpuThrottled: counter('cpu_cfs_throttled_seconds_total', 'Time spent throttled, seconds'),

  memoryUsage: gauge('memory_usage_bytes', 'Memory in use, caches included'),
  memoryMaxUsage: gauge('memory_max_usage_bytes', 'Largest memory usage so far'),
  memoryWorkingSet: gauge('memory_working_set_bytes', 'Memory in use without the inactive file cache'),
  memoryRss: gauge('memory_rss', 'Anonymous memory, bytes'),
  memoryCache: gauge('memory_cache', 'Page cache, bytes'),
  memoryMappedFile: gauge('memory_mapped_file', 'Files mapped into memory, bytes'),
  memorySwap: gauge('memory_swap', 'Swap in use, bytes'),
  memoryKernel: gauge('memory_kernel_usage', 'Memory of the kernel on behalf of the group, bytes'),
  memoryFailcnt: counter('memory_failcnt', 'How often the memory limit was met'),
  memoryFailures: counter('memory_failures_total', 'Page faults', 'failure_type', 'scope'),
  hugetlbUsage: gauge('hugetlb_usage_bytes', 'Huge pages in use or reserved, bytes', 'pagesize'),
  hugetlbMaxUsage: gauge(
    'hugetlb_max_usage_bytes',
    'Most huge pages in use or reserved so far, bytes',
    'pagesize',
  ),
  oomEvents: counter('oom_events_total', 'Processes that the kernel killed for memory'),

  processes: gauge('processes', 'Processes'),
  threads: gauge('threads', 'Threads'),
  threadsMax: gauge('threads_max', 'Most threads that are allowed, 0 for any number'),
  fileDescriptors: gauge('file_descriptors', 'Open file descriptors'),
  sockets: gauge('sockets', 'Open sockets'),
  ulimitsSoft: gauge('ulimits_soft', 'Soft limit of the first process, 2⁶⁴−1 for none', 'ulimit'),

  fsUsage: gauge('fs_usage_bytes', 'Bytes in the writable layer', 'device'),
  fsLimit: gauge('fs_limit_bytes', 'Size of the file system of the writable layer', 'device'),
  fsInodesTotal: gauge('fs_inodes_total', 'Inodes of the file system of the writable layer', 'device'),
  fsInodesFree: gauge('fs_inodes_free', 'Free inodes of the file system of the writable layer', 'device'),
  fsReads: counter('fs_reads_total', 'Reads completed', 'device'),
  fsReadBytes: counter('fs_reads_bytes_total', 'Bytes read', 'device'),
  fsWrites: counter('fs_writes_total', 'Writes completed', 'device'),
  fsWriteBytes: counter('fs_writes_bytes_total', 'Bytes written', 'device'),
  blkioUsage: counter(
    'blkio_device_usage_total',
    'Bytes moved by a block device',
    'device',
    'major',
    'minor',
    'operation',
  ),

  specCpuPeriod: gauge('spec_cpu_period', 'Length of an enforcement period, microseconds'),
  specCpuShares: gauge('spec_cpu_shares', 'Relative share of the processors'),
  specCpuQuota: gauge(
    'spec_cpu_quota',
    'Processor time in each period, microseconds; absent without a limit',
  ),
  specMemoryLimit: gauge('spec_memory_limit_bytes', 'Memory limit, 0 for none'),
  specMemoryReservation: gauge(
    'spec_memory_reservation_limit_bytes',
    'Memory that is left to it when the node runs short, 0 for none',
  ),
  specMemorySwapLimit: gauge('spec_memory_swap_limit_bytes', 'Limit of memory and swap together, 0 for none'),

  pressureCpuWaiting: counter('pressure_cpu_waiting_seconds_total', 'Time some task waited for a processor'),
  pressureCpuStalled: counter(
    'pressure_cpu_stalled_seconds_total',
    'Time no task could go on for processors',
  ),
  pressureMemoryWaiting: counter('pressure_memory_waiting_seconds_total', 'Time some task waited for memory'),
  pressureMemoryStalled: counter(
    'pressure_memory_stalled_seconds_total',
    'Time no task could go on for memory',
  ),
  pressureIoWaiting: counter(
    'pressure_io_waiting_seconds_total',
    'Time some task waited for input or output',
  ),
  pressureIoStalled: counter(
    'pressure_io_stalled_seconds_total',
    'Time no task could go on for input or output',
  ),

  rxBytes: counter('network_receive_bytes_total', 'Bytes received', 'interface'),
  rxErrors: counter('network_receive_errors_total', 'Packets received in error', 'interface'),
  rxPackets: counter('network_receive_packets_total', 'Packets received', 'interface'),
  rxDropped: counter('network_receive_packets_dropped_total', 'Packets dropped when received', 'interface'),
  txBytes: counter('network_transmit_bytes_total', 'Bytes sent', 'interface'),
  txErrors: counter('network_transmit_errors_total', 'Packets sent in error', 'interface'),
  txPackets: counter('network_transmit_packets_total', 'Packets sent', 'interface'),
  txDropped: counter('network_transmit_packets_dropped_total', 'Packets dropped when sent', 'interface'),
} as const satisfies Readonly<Record<string, MetricDescriptor>>

/** What the control groups of this node count beside the rest. */
export type Counted = {
  readonly version: 1 | 2
  readonly pressure: boolean
  readonly hugepageSizes: readonly string[]
}

/** Without those that would never have a value on this node. */
export function metricDescriptors({ version, pressure, hugepageSizes }: Counted): MetricDescriptor[] {
  const isCounted = ({ name }: MetricDescriptor) => {
    if (name.startsWith('container_pressure_')) return pressure
    if (name === METRICS.hugetlbMaxUsage.name) return version === 1 && hugepageSizes.length > 0
    if (name === METRICS.hugetlbUsage.name) return hugepageSizes.length > 0
    return true
  }
  return Object.values(METRICS).filter(isCounted)
}

function describer(kind: MetricDescriptor['kind']) {
  return (name: string, help: string, ...labels: string[]): MetricDescriptor => ({
    name: `container_${name}`,
    help,
    kind,
    labels: [...OBJECT_LABELS, ...labels],
  })
}
