import { posix } from 'node:path'
import type { KeyedMutex } from '../base/keyed-mutex.ts'
import type { Retries } from '../base/retries.ts'
import type { Semaphore } from '../base/semaphore.ts'
import type { NodePaths } from '../config/paths.ts'
import type { ImageService } from '../images/image-service.ts'
import type { Container } from '../model/container.ts'
import { type Pod, podUserOf } from '../model/pod.ts'
import { isSlice } from '../model/slice.ts'
import type { Log } from '../observe/log.ts'
import type { StepContext, Timeline } from '../observe/timeline.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import type { Handlers } from '../runtime/handlers.ts'
import type { ContainerPaths, Runtime } from '../runtime/runtime.ts'
import type { Catalog } from '../state/catalog.ts'
import type { MappedIds, Snapshots } from '../storage/snapshots.ts'
import type { ContainerEvents } from './container-events.ts'
import type { Selinux } from './selinux.ts'
import type { HostFacts, SpecDefaults } from './spec/spec.ts'

/** What the configuration says of one runtime handler beyond the runtime itself. */
export type HandlerOptions = {
  /** Where monitors go: `pod` is the pod's cgroup, '' the daemon's own, else a path in the hierarchy. */
  readonly monitorCgroup: string
  /** Annotations that the runtime may see, by exact key. */
  readonly allowedAnnotations: readonly string[]
}

/** What the container verbs work with; made once by the composition root. */
export type ContainerContext = {
  readonly catalog: Catalog
  readonly paths: NodePaths
  readonly handlers: Handlers
  readonly handlerOptions: (name: string) => HandlerOptions
  readonly images: ImageService
  readonly snapshots: Snapshots
  readonly cgroups: Cgroups
  readonly events: ContainerEvents
  readonly timeline: Timeline
  readonly log: Log
  /** One holder per container id. Held over the steps of one verb, never over a grace period. */
  readonly locks: KeyedMutex
  /** Bounds the heavy steps (runtime create, delete) of the node: more at once only makes each slower. */
  readonly heavy: Semaphore
  /** Clean-ups and recoveries that failed. */
  readonly retries: Retries
  /** From the leaving of an exec's client to SIGKILL for what it ran; 0 is never. */
  readonly execKillAfterMs: number
  readonly specDefaults: Omit<SpecDefaults, 'allowedAnnotations'>
  /** Directories of CDI specifications; a later one goes before an earlier one. */
  readonly cdiSpecDirs: readonly string[]
  /** What the daemon itself may do; devices are looked up for each privileged container. */
  readonly host: Omit<HostFacts, 'devices'>
  /** undefined: not wanted, or not in the kernel. */
  readonly selinux: Selinux | undefined
}

export function pathsOf(context: ContainerContext, id: string): ContainerPaths {
  return { bundle: context.paths.bundle(id), persist: context.paths.persist(id) }
}

/** The runtime of the container's pod; the default one when its handler has left the configuration. */
export function runtimeOf(context: ContainerContext, container: Container): Runtime {
  return context.handlers.getOrDefault(context.catalog.pod(container.podId)?.runtimeHandler ?? '')
}

/** How the files of a pod's containers are shown to them; undefined without a user namespace of the pod's own. */
export function mappedIds(context: ContainerContext, podId: string): MappedIds | undefined {
  const pod = context.catalog.pod(podId)
  const user = pod && podUserOf(pod.config.namespaces)
  return user && { namespace: context.paths.pod(podId).namespace('user'), ...user }
}

export function stepOf(container: Container, operation: string): StepContext {
  return { podId: container.podId, containerId: container.id, operation }
}

/** The monitor's own cgroup, beside the container's: its memory must not count against the limit it watches. */
export function monitorCgroup(
  context: Pick<ContainerContext, 'handlerOptions'>,
  pod: Pod,
  id: string,
): string | undefined {
  const parent = context.handlerOptions(pod.runtimeHandler).monitorCgroup
  if (parent === '') return undefined
  return `${parent === 'pod' ? pod.cgroup : parent}/berth-conmon-${id}${suffixOf(pod)}`
}

/** Of a container or an init process. */
export function containerCgroup(pod: Pick<Pod, 'cgroup'>, id: string): string {
  return `${pod.cgroup}/berth-${id}${suffixOf(pod)}`
}

/** Below a slice, which only systemd's driver has, a group of processes is a scope. */
function suffixOf(pod: Pick<Pod, 'cgroup'>): string {
  return isSlice(pod.cgroup) ? '.scope' : ''
}

/** A group as the runtime wants it named: a path, or the slice, prefix and rest of a scope's name. */
export function ociCgroupsPath(cgroup: string): string {
  const scope = /^berth-(.*)\.scope$/.exec(posix.basename(cgroup))
  return scope === null ? cgroup : `${posix.basename(posix.dirname(cgroup))}:berth:${scope[1]}`
}

/** Groups that a container made, and whatever still runs in its own. Idempotent. */
export async function removeCgroups(context: ContainerContext, container: Container): Promise<void> {
  const { cgroups, catalog } = context
  await cgroups.kill(container.cgroup)
  await cgroups.remove(container.cgroup)
  const pod = catalog.pod(container.podId)
  const monitor = pod && monitorCgroup(context, pod, container.id)
  if (monitor !== undefined) await cgroups.remove(monitor)
}
