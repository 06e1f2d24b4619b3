import { type Dict, dict } from '../base/dict.ts'
import type { ContainerConfig } from '../model/container.ts'
import type { ImageConfig } from '../model/image.ts'
import type { PodConfig, ProcessRef } from '../model/pod.ts'

/** How values cross between rows and the model. Rows are read with 64-bit integers as bigint. */

export function flag(value: boolean): number {
  return value ? 1 : 0
}

export function processColumns(ref: ProcessRef | undefined): [number | null, string | null] {
  return ref === undefined ? [null, null] : [ref.pid, ref.startTime]
}

export function processOf(pid: bigint | null, start: string | null): ProcessRef | undefined {
  return pid === null || start === null ? undefined : { pid: Number(pid), startTime: start }
}

/** JSON gives ordinary objects; users' maps go back to null-prototype ones. */
export function revivePodConfig(json: string): PodConfig {
  const config = JSON.parse(json) as PodConfig
  return {
    ...config,
    labels: dict(config.labels),
    annotations: dict(config.annotations),
    sysctls: dict(config.sysctls),
  }
}

export function reviveContainerConfig(json: string): ContainerConfig {
  const config = JSON.parse(json) as ContainerConfig
  return { ...config, labels: dict(config.labels), annotations: dict(config.annotations) }
}

export function reviveImageConfig(json: string): ImageConfig {
  const config = JSON.parse(json) as ImageConfig
  return { ...config, labels: dict(config.labels) }
}

export function reviveDict(json: string): Dict {
  return dict(JSON.parse(json) as Record<string, string>)
}

/** A row whose JSON could not be read still has its typed columns; `error` says why the rest is missing. */
export type Unreadable = { readonly id: string; readonly error: string }
