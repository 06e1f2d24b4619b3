import type {
  ContainerStats,
  CpuUsage,
  InterfaceUsage,
  IoUsage,
  MemoryUsage,
  PodStats,
  Psi,
  SwapUsage,
} from '../../model/usage.ts'
import type { ContainerStats as WireContainerStats } from '../generated/runtime/v1/ContainerStats.ts'
import type { CpuUsage as WireCpu } from '../generated/runtime/v1/CpuUsage.ts'
import type { IoUsage as WireIo } from '../generated/runtime/v1/IoUsage.ts'
import type { MemoryUsage as WireMemory } from '../generated/runtime/v1/MemoryUsage.ts'
import type { NetworkInterfaceUsage } from '../generated/runtime/v1/NetworkInterfaceUsage.ts'
import type { NetworkUsage } from '../generated/runtime/v1/NetworkUsage.ts'
import type { PodSandboxStats } from '../generated/runtime/v1/PodSandboxStats.ts'
import type { PsiData } from '../generated/runtime/v1/PsiData.ts'
import type { PsiStats } from '../generated/runtime/v1/PsiStats.ts'
import type { SwapUsage as WireSwap } from '../generated/runtime/v1/SwapUsage.ts'
import { fromFsUsage } from './images.ts'
import { fromPodMetadata } from './pods.ts'

export function fromContainerStats(stats: ContainerStats): WireContainerStats {
  const { container, cpu, memory, swap, io } = stats
  const { metadata, labels, annotations } = container.config
  return {
    attributes: {
      id: container.id,
      metadata: { name: metadata.name, attempt: metadata.attempt },
      labels,
      annotations,
    },
    cpu: cpu === undefined ? null : fromCpu(cpu),
    memory: memory === undefined ? null : fromMemory(memory),
    writable_layer: fromFsUsage(stats.writable),
    swap: swap === undefined ? null : fromSwap(swap),
    io: io === undefined ? null : fromIo(io),
  }
}

export function fromPodStats(stats: PodStats): PodSandboxStats {
  const { pod, cpu, memory, io, network } = stats
  const { metadata, labels, annotations } = pod.config
  return {
    attributes: { id: pod.id, metadata: fromPodMetadata(metadata), labels, annotations },
    linux: {
      cpu: cpu === undefined ? null : fromCpu(cpu),
      memory: memory === undefined ? null : fromMemory(memory),
      network: network === undefined ? null : fromNetwork(network),
      process: { timestamp: String(stats.timestamp), process_count: fromNumber(stats.processCount) },
      containers: stats.containers.map(fromContainerStats),
      io: io === undefined ? null : fromIo(io),
    },
  }
}

function fromCpu(cpu: CpuUsage): WireCpu {
  return {
    timestamp: String(cpu.timestamp),
    usage_core_nano_seconds: fromNumber(cpu.usageNs),
    usage_nano_cores: fromNumber(cpu.nanoCores),
    psi: fromPsi(cpu.psi),
  }
}

function fromMemory(memory: MemoryUsage): WireMemory {
  return {
    timestamp: String(memory.timestamp),
    working_set_bytes: fromNumber(memory.workingSet),
    available_bytes: fromNumber(memory.available),
    usage_bytes: fromNumber(memory.usage),
    rss_bytes: fromNumber(memory.rss),
    page_faults: fromNumber(memory.pageFaults),
    major_page_faults: fromNumber(memory.majorPageFaults),
    psi: fromPsi(memory.psi),
  }
}

function fromSwap(swap: SwapUsage): WireSwap {
  return {
    timestamp: String(swap.timestamp),
    swap_available_bytes: fromNumber(swap.available),
    swap_usage_bytes: fromNumber(swap.usage),
  }
}

function fromIo(io: IoUsage): WireIo {
  return { timestamp: String(io.timestamp), psi: fromPsi(io.psi) }
}

function fromNetwork(network: NonNullable<PodStats['network']>): NetworkUsage {
  return {
    timestamp: String(network.timestamp),
    default_interface: fromInterface(network.defaultInterface),
    interfaces: network.interfaces.map(fromInterface),
  }
}

function fromInterface(usage: InterfaceUsage): NetworkInterfaceUsage {
  return {
    name: usage.name,
    rx_bytes: fromNumber(usage.rxBytes),
    rx_errors: fromNumber(usage.rxErrors),
    tx_bytes: fromNumber(usage.txBytes),
    tx_errors: fromNumber(usage.txErrors),
  }
}

function fromPsi(psi: Psi | undefined): PsiStats | null {
  return psi === undefined ? null : { Full: fromPsiData(psi.full), Some: fromPsiData(psi.some) }
}

function fromPsiData({ totalNs, avg10, avg60, avg300 }: Psi['full']): PsiData {
  return { Total: String(totalNs), Avg10: avg10, Avg60: avg60, Avg300: avg300 }
}

/** Absent is "not measured", which 0 is not. */
function fromNumber(value: bigint | undefined): { value: string } | null {
  return value === undefined ? null : { value: String(value) }
}
