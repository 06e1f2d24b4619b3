import type { Dict } from '../base/dict.ts'
import type { Digest } from '../base/digest.ts'
import type { ContainerEvent } from '../containers/container-events.ts'
import type { ContainerState, ContainerStatus, PodState, PodStatus } from '../containers/container-state.ts'
import type { Container, ContainerConfig } from '../model/container.ts'
import type { Image } from '../model/image.ts'
import type { MetricDescriptor, PodMetrics } from '../model/metrics.ts'
import type { Pod, PodConfig } from '../model/pod.ts'
import type { LinuxResources } from '../model/security.ts'
import type { AttachRequest, ExecRequest, PortForwardRequest } from '../model/stream-request.ts'
import type { ContainerStats, DiskUsage, PodStats } from '../model/usage.ts'
import type { NetworkStatus } from '../network/network.ts'
import type { Credentials } from '../registry/credentials.ts'
import type { CgroupDriver } from './convert/pod-config.ts'

/*
 * What the calls of the interface need from the rest of the daemon. An id may be a unique prefix. A signal says that
 * the caller has left: the work itself may go on. What is not found is a BerthError not-found, but for the calls
 * that say otherwise.
 */

/** '' and empty match everything; what is given must all match. */
export type PodFilter = { readonly id: string; readonly state?: PodState; readonly labels: Dict }

export interface Pods {
  /** @returns the pod's id */
  run(config: PodConfig, runtimeHandler: string, signal: AbortSignal): Promise<string>
  /** An unknown id is no error. */
  stop(id: string, signal: AbortSignal): Promise<void>
  /** An unknown id is no error. */
  remove(id: string, signal: AbortSignal): Promise<void>
  status(id: string): PodStatus
  list(filter: PodFilter): Pod[]
  updateResources(id: string, overhead?: LinuxResources, resources?: LinuxResources): Promise<void>
  /** For tools: JSON values and bigint, no secrets. */
  verbose(id: string): Record<string, unknown>
  stats(id: string): Promise<PodStats>
  listStats(filter: { readonly id: string; readonly labels: Dict }): Promise<PodStats[]>
  metricDescriptors(): MetricDescriptor[]
  /** Of ready pods. */
  metrics(): AsyncIterable<PodMetrics>
}

export type ContainerFilter = {
  readonly id: string
  readonly podId: string
  readonly state?: ContainerState
  readonly labels: Dict
}

export interface Containers {
  /** @returns the container's id */
  create(podId: string, config: ContainerConfig, signal: AbortSignal): Promise<string>
  start(id: string, signal: AbortSignal): Promise<void>
  /** An unknown id is no error. */
  stop(id: string, timeoutSeconds: number, signal: AbortSignal): Promise<void>
  /** An unknown id is no error. */
  remove(id: string, signal: AbortSignal): Promise<void>
  status(id: string): ContainerStatus
  list(filter: ContainerFilter): Container[]
  /** For tools: JSON values and bigint, no secrets. */
  verbose(id: string): Record<string, unknown>
  updateResources(id: string, resources: LinuxResources): Promise<void>
  reopenLog(id: string): Promise<void>
  /** @throws BerthError deadline after `timeoutSeconds` (0: none), when everything it started is dead */
  execSync(id: string, command: string[], timeoutSeconds: number, signal: AbortSignal): Promise<ExecOutput>
  stats(id: string): Promise<ContainerStats>
  listStats(filter: {
    readonly id: string
    readonly podId: string
    readonly labels: Dict
  }): Promise<ContainerStats[]>
}

export type ExecOutput = { readonly stdout: Buffer; readonly stderr: Buffer; readonly exitCode: number }

/** Sessions that go through the streaming server. Each call answers with the URL that the client has to come to. */
export interface Streams {
  exec(request: ExecRequest): string
  attach(request: AttachRequest): string
  portForward(request: PortForwardRequest): string
}

export type PullProgress = {
  /** In the image's order, lowest first; sizes in bytes, compressed. */
  readonly layers: ReadonlyArray<{
    readonly digest: string
    readonly state: 'waiting' | 'downloading' | 'unpacking' | 'committing' | 'done' | 'exists'
    readonly bytes: number
    readonly unpacked: number
    readonly total: number
    readonly waitsFor: string
  }>
}

export interface Images {
  /**
   * @param namespace of the pod that the image is for; '' or undefined if it is for none
   * @returns the image's id
   */
  pull(
    reference: string,
    credentials: Credentials | undefined,
    signal: AbortSignal,
    onProgress?: (progress: PullProgress) => void,
    namespace?: string,
  ): Promise<Digest>
  /** '' lists all. */
  list(reference: string): Image[]
  status(reference: string): Image | undefined
  remove(reference: string): Promise<void>
  inspect(
    reference: string,
  ): { readonly config: unknown; readonly chainId: string; readonly manifestDigest: string } | undefined
  /** Of the file system that holds images and containers. */
  fsUsage(): DiskUsage
}

export interface Events {
  subscribe(): AsyncIterable<ContainerEvent> & Disposable
}

export type HandlerView = {
  readonly name: string
  readonly features: { readonly recursiveReadOnly: boolean; readonly userNamespaces: boolean }
}

/** The node as the Status, Version and RuntimeConfig calls show it. */
export interface NodeView {
  /** A semantic version. */
  readonly version: string
  readonly cgroupDriver: CgroupDriver
  readonly features: {
    readonly supplementalGroupsPolicy: boolean
    readonly userNamespacesHostNetwork: boolean
  }
  runtimeReady(): { readonly ready: boolean; readonly reason: string; readonly message: string }
  network(): NetworkStatus
  /** The default handler twice: under '' first, then under its name. */
  handlers(): readonly HandlerView[]
  /** At least `sandboxImage` and `stateDir`, which kubeadm and critest read. */
  verboseConfig(): Record<string, unknown>
  setPodCidr(cidr: string): void
}

export type CriServices = {
  readonly pods: Pods
  readonly containers: Containers
  readonly images: Images
  readonly events: Events
  readonly streams: Streams
  readonly node: NodeView
}
