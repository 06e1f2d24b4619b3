import type { ContainerState, PodState } from '../../containers/container-state.ts'
import type { ContainerFilter__Output } from '../generated/runtime/v1/ContainerFilter.ts'
import type { ContainerStatsFilter__Output } from '../generated/runtime/v1/ContainerStatsFilter.ts'
import type { PodSandboxFilter__Output } from '../generated/runtime/v1/PodSandboxFilter.ts'
import type { PodSandboxStatsFilter__Output } from '../generated/runtime/v1/PodSandboxStatsFilter.ts'
import type { ContainerFilter, PodFilter } from '../services.ts'
import { choice, textMap } from './fields.ts'

const POD_STATES: Readonly<Record<string, PodState>> = {
  SANDBOX_READY: 'ready',
  SANDBOX_NOTREADY: 'notready',
}

const CONTAINER_STATES: Readonly<Record<string, ContainerState>> = {
  CONTAINER_CREATED: 'created',
  CONTAINER_RUNNING: 'running',
  CONTAINER_EXITED: 'exited',
  CONTAINER_UNKNOWN: 'unknown',
}

export function toPodFilter(wire: PodSandboxFilter__Output | null): PodFilter {
  const filter = { id: wire?.id ?? '', labels: textMap(wire?.label_selector ?? {}) }
  const state = wire?.state ?? null
  return state === null ? filter : { ...filter, state: choice('filter.state', state.state, POD_STATES) }
}

export function toPodStatsFilter(
  wire: PodSandboxStatsFilter__Output | null,
): Pick<PodFilter, 'id' | 'labels'> {
  return { id: wire?.id ?? '', labels: textMap(wire?.label_selector ?? {}) }
}

export function toContainerFilter(wire: ContainerFilter__Output | null): ContainerFilter {
  const filter = toContainerStatsFilter(wire)
  const state = wire?.state ?? null
  return state === null ? filter : { ...filter, state: choice('filter.state', state.state, CONTAINER_STATES) }
}

export function toContainerStatsFilter(
  wire: ContainerStatsFilter__Output | null,
): Omit<ContainerFilter, 'state'> {
  return {
    id: wire?.id ?? '',
    podId: wire?.pod_sandbox_id ?? '',
    labels: textMap(wire?.label_selector ?? {}),
  }
}
