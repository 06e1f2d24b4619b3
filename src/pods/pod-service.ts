import type { Socket } from 'node:net'
import type { Dict } from '../base/dict.ts'
import { BerthError, messageOf, notFound, precondition } from '../base/errors.ts'
import { sameContent } from '../base/same-content.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { type PodState, type PodStatus, podStateOf } from '../containers/container-state.ts'
import type { MetricDescriptor, PodMetrics } from '../model/metrics.ts'
import { type Pod, type PodConfig, podKey, podName } from '../model/pod.ts'
import type { LinuxResources } from '../model/security.ts'
import type { PodStats } from '../model/usage.ts'
import type { PodContext } from './context.ts'
import { connectToPort } from './forward-port.ts'
import type { PodMetricsReader } from './pod-metrics.ts'
import { updatePodResources } from './pod-resources.ts'
import type { PodStatsReader } from './pod-stats.ts'
import { removePod } from './remove-pod.ts'
import { runPod } from './run-pod.ts'
import { stopPod } from './stop-pod.ts'

/** '' and empty match everything; what is given must all match. */
export type PodFilter = { readonly id: string; readonly state?: PodState; readonly labels: Dict }

type Run = { readonly config: PodConfig; readonly handler: string }

/** The pods of the node: one method for each call of the CRI, each of which may come again at any time. */
export class PodService {
  readonly #context: PodContext
  readonly #stats: PodStatsReader
  readonly #metrics: PodMetricsReader
  readonly #runs = new SingleFlight<string>('never')
  readonly #stops = new SingleFlight<void>('never')
  readonly #removes = new SingleFlight<void>('never')
  /** What is being made, by key. */
  readonly #running = new Map<string, Run>()

  constructor(context: PodContext, stats: PodStatsReader, metrics: PodMetricsReader) {
    this.#context = context
    this.#stats = stats
    this.#metrics = metrics
  }

  /**
   * A call with the key of one under way joins it; one whose answer never reached its caller gets that answer. A
   * caller that leaves does not end the work.
   */
  async run(config: PodConfig, handler: string, signal: AbortSignal): Promise<string> {
    const key = podKey(config.metadata)
    const run: Run = { config, handler }
    const inFlight = this.#running.get(key)
    if (inFlight !== undefined && !sameContent(inFlight, run)) throw this.#duplicate(config)
    const id = await this.#runs.run(key, signal, async () => {
      this.#running.set(key, run)
      try {
        return (await this.#reuse(key, run)) ?? (await runPod(this.#context, config, handler))
      } finally {
        this.#running.delete(key)
      }
    })
    this.#deliver(id)
    return id
  }

  async stop(idOrPrefix: string, signal?: AbortSignal): Promise<void> {
    const id = this.#context.catalog.findPod(idOrPrefix)?.id
    if (id !== undefined) await this.#stops.run(id, signal, () => this.#stop(id))
  }

  async remove(idOrPrefix: string, signal?: AbortSignal): Promise<void> {
    const id = this.#context.catalog.findPod(idOrPrefix)?.id
    if (id === undefined) return
    await this.#removes.run(id, signal, () => this.#remove(id))
  }

  /** What it could not let go of yet (its network, say) is tried again, also if nobody asks. */
  async #stop(id: string): Promise<void> {
    try {
      await stopPod(this.#context, id)
    } catch (error) {
      this.#context.retries.later(`stopping pod ${id}`, () => this.stop(id))
      throw error
    }
  }

  async #remove(id: string): Promise<void> {
    try {
      await removePod(this.#context, id)
      this.#stats.forget(id)
    } catch (error) {
      this.#context.retries.later(`removing pod ${id}`, () => this.remove(id))
      throw error
    }
  }

  /** @throws BerthError not-found */
  status(idOrPrefix: string): PodStatus {
    const status = this.#context.events.podStatus(this.#require(idOrPrefix).id)
    if (status === undefined) throw notFound('pod sandbox', idOrPrefix)
    return status
  }

  list(filter: PodFilter): Pod[] {
    const { catalog } = this.#context
    const one = filter.id === '' ? undefined : catalog.findPod(filter.id)
    const candidates = filter.id === '' ? catalog.pods() : one === undefined ? [] : [one]
    const labels = Object.entries(filter.labels)
    const found: Pod[] = []
    for (const pod of candidates) {
      const state = podStateOf(pod)
      if (state === undefined || (filter.state !== undefined && state !== filter.state)) continue
      if (labels.every(([key, value]) => pod.config.labels[key] === value)) found.push(pod)
    }
    return found
  }

  /** What `crictl inspectp` shows below `info`. */
  verbose(idOrPrefix: string): Record<string, unknown> {
    const pod = this.#require(idOrPrefix)
    const paths = this.#context.paths.pod(pod.id)
    const { network, ipc } = pod.config.namespaces
    return {
      pid: pod.init?.pid ?? 0,
      runtimeHandler: pod.runtimeHandler,
      cgroup: pod.cgroup,
      netns: network === 'node' ? '' : paths.namespace('net'),
      ipcns: ipc === 'node' ? '' : paths.namespace('ipc'),
      cniResult: pod.network.attachment?.result,
      networkHeld: pod.networkHeld,
      phase: pod.phase,
      config: pod.config,
    }
  }

  /** @throws BerthError not-found; invalid or precondition for limits that cannot be */
  async updateResources(
    idOrPrefix: string,
    overhead?: LinuxResources,
    resources?: LinuxResources,
  ): Promise<void> {
    await updatePodResources(this.#context, this.#require(idOrPrefix).id, overhead, resources)
  }

  async stats(idOrPrefix: string): Promise<PodStats> {
    return await this.#stats.of(this.#require(idOrPrefix))
  }

  /** Of ready pods only. */
  async listStats(filter: Omit<PodFilter, 'state'>): Promise<PodStats[]> {
    return await this.#stats.ofAll(this.list({ ...filter, state: 'ready' }))
  }

  metricDescriptors(): MetricDescriptor[] {
    return this.#metrics.descriptors()
  }

  /** Of ready pods only. */
  metrics(): AsyncIterable<PodMetrics> {
    return this.#metrics.ofAll([...this.#context.catalog.pods()])
  }

  /** By id or unique prefix. @throws BerthError not-found, precondition */
  requireReady(idOrPrefix: string): Pod {
    const pod = this.#require(idOrPrefix)
    if (pod.phase !== 'ready') throw precondition(`pod ${pod.id} is not ready`)
    return pod
  }

  /**
   * An open connection, half-closable, to a port inside a ready pod; `signal` is the client's leaving.
   * @throws BerthError that says why there is none
   */
  async connect(idOrPrefix: string, port: number, signal: AbortSignal): Promise<Socket> {
    return await connectToPort(this.#context, this.requireReady(idOrPrefix), port, signal)
  }

  /** Work under way, for a shutdown that lets it finish. */
  async settled(): Promise<void> {
    await Promise.all([this.#runs.settled(), this.#stops.settled(), this.#removes.settled()])
  }

  #require(idOrPrefix: string): Pod {
    const pod = this.#context.catalog.findPod(idOrPrefix)
    if (pod === undefined || pod.phase === 'creating') throw notFound('pod sandbox', idOrPrefix)
    return pod
  }

  /** The id of a pod with this key, if it is one that its caller never heard of. */
  async #reuse(key: string, run: Run): Promise<string | undefined> {
    const existing = this.#context.catalog.podByKey(key)
    if (existing === undefined) return undefined
    if (existing.phase !== 'ready' && !existing.delivered) {
      // It never came up and could not be cleared. Once more: the key is free when nothing of it is left.
      await removePod(this.#context, existing.id)
      return undefined
    }
    const same = existing.runtimeHandler === run.handler && sameConfig(existing.config, run.config)
    if (existing.phase !== 'ready' || existing.delivered || !same) throw this.#duplicate(run.config)
    return existing.id
  }

  #duplicate(config: PodConfig): BerthError {
    const { catalog, timeline } = this.#context
    const existing = catalog.podByKey(podKey(config.metadata))
    const doing = existing && timeline.describe(existing.id)
    return new BerthError(
      'exists',
      `pod ${podName(config.metadata)} exists${existing === undefined ? ' with another configuration' : ` as ${existing.id}`}` +
        `${doing ? `; ${doing}` : ''}`,
    )
  }

  /**
   * The answer is on its way: from now on the same call is a duplicate. Nobody waits for this row, and without it (on a
   * full disk, say) the worst is that a retry gets the id once more.
   */
  #deliver(id: string): void {
    setImmediate(() => {
      const { catalog, log } = this.#context
      try {
        if (catalog.pod(id)?.delivered === false) catalog.updatePod(id, { delivered: true })
      } catch (error) {
        log.warn({ podId: id, error: messageOf(error) }, 'that a pod was delivered could not be recorded')
      }
    })
  }
}

/** The stored one has the node's answers where the client left something to it. */
function sameConfig(stored: PodConfig, asked: PodConfig): boolean {
  const left = {
    ...(asked.hostname === '' ? { hostname: '' } : {}),
    ...(asked.logDirectory === '' ? { logDirectory: '' } : {}),
  }
  return sameContent({ ...stored, ...left }, asked)
}
