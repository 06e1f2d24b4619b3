import type { Dict } from '../base/dict.ts'
import type { KeyedMutex } from '../base/keyed-mutex.ts'
import type { Retries } from '../base/retries.ts'
import type { Semaphore } from '../base/semaphore.ts'
import type { NodePaths } from '../config/paths.ts'
import type { ContainerEvents } from '../containers/container-events.ts'
import type { ContainerService } from '../containers/container-service.ts'
import type { HandlerOptions } from '../containers/context.ts'
import type { Selinux } from '../containers/selinux.ts'
import type { HostFacts, SpecDefaults } from '../containers/spec/spec.ts'
import type { Pod } from '../model/pod.ts'
import type { Network, NetworkTarget } from '../network/network.ts'
import type { Log } from '../observe/log.ts'
import type { StepContext, Timeline } from '../observe/timeline.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import type { NamespacePins } from '../os/namespaces.ts'
import type { Handlers } from '../runtime/handlers.ts'
import type { Catalog } from '../state/catalog.ts'
import type { PodInits } from './pod-inits.ts'

/** What the pod verbs work with; made once by the composition root. */
export type PodContext = {
  readonly catalog: Catalog
  readonly paths: NodePaths
  readonly containers: ContainerService
  readonly events: ContainerEvents
  readonly handlers: Handlers
  readonly handlerOptions: (name: string) => HandlerOptions
  readonly network: Network
  readonly pins: NamespacePins
  readonly inits: PodInits
  readonly cgroups: Cgroups
  readonly timeline: Timeline
  readonly log: Log
  /** One holder per pod id. */
  readonly locks: KeyedMutex
  readonly heavy: Semaphore
  /** Clean-ups and recoveries that failed. */
  readonly retries: Retries
  /** Bounds CNI plugins at work: each is a chain of processes. */
  readonly networkSlots: Semaphore
  readonly host: Omit<HostFacts, 'devices'>
  /** undefined: not wanted, or not in the kernel. */
  readonly selinux: Selinux | undefined
  readonly specDefaults: Omit<SpecDefaults, 'allowedAnnotations'>
  /** Absolute path of the init process for shared PID namespaces (catatonit). */
  readonly initPath: string
  /** Parent of the log directories of pods whose client names none; '' discards their output. */
  readonly logDirectory: string
  /** Parent of pods whose client names none. */
  readonly defaultCgroup: string
  /** For every pod with a namespace of its own; the pod's own come on top. */
  readonly defaultSysctls: Dict
  /** The kernel and the file system of images can show files with mapped owners, as user namespaces need. */
  readonly mappedMounts: boolean
}

export function stepOf(pod: Pod, operation: string): StepContext {
  return { podId: pod.id, operation }
}

export function hasNetwork(pod: Pod): boolean {
  return pod.config.namespaces.network !== 'node'
}

const BANDWIDTH = { ingress: 'kubernetes.io/ingress-bandwidth', egress: 'kubernetes.io/egress-bandwidth' }

/** What CNI needs to know of a pod; without a namespace once that is gone. */
export function targetOf(context: PodContext, pod: Pod, withNamespace: boolean): NetworkTarget {
  const ingress = parseBandwidth(pod.config.annotations[BANDWIDTH.ingress])
  const egress = parseBandwidth(pod.config.annotations[BANDWIDTH.egress])
  const bandwidth = {
    ...(ingress === undefined ? {} : { ingress }),
    ...(egress === undefined ? {} : { egress }),
  }
  return {
    podId: pod.id,
    metadata: pod.config.metadata,
    netns: withNamespace ? context.paths.pod(pod.id).namespace('net') : '',
    portMappings: pod.config.portMappings,
    ...(Object.keys(bandwidth).length === 0 ? {} : { bandwidth }),
  }
}

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}

/** A Kubernetes quantity of bits per second; what is none counts as not given, since annotations are free text. */
function parseBandwidth(text: string | undefined): number | undefined {
  const match = /^([0-9]+)(k|M|G|T|Ki|Mi|Gi|Ti)?$/.exec(text ?? '')
  if (match === null) return undefined
  const bits = Number(match[1]) * (FACTORS[match[2] ?? ''] ?? 1)
  return Number.isSafeInteger(bits) && bits > 0 ? bits : undefined
}
