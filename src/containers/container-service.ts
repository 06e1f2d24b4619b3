import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Dict } from '../base/dict.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import { sameContent } from '../base/same-content.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { type Container, type ContainerConfig, containerKey } from '../model/container.ts'
import type { OciSpec } from '../model/oci.ts'
import type { LinuxResources } from '../model/security.ts'
import type { ContainerStats } from '../model/usage.ts'
import type { Channels } from '../runtime/channels.ts'
import { attachContainer, requireAttachable } from './attach-container.ts'
import { type ContainerState, type ContainerStatus, requireContainer, stateOf } from './container-state.ts'
import { type ContainerContext, pathsOf } from './context.ts'
import { createContainer } from './create-container.ts'
import { execStream, execSync, requireRunning } from './exec-container.ts'
import type { Exits } from './exits.ts'
import { removeContainer, undoContainer } from './remove-container.ts'
import { startContainer } from './start-container.ts'
import type { ContainerStatsReader } from './stats.ts'
import { Stops } from './stop-container.ts'
import { reopenLog, updateContainer } from './update-container.ts'

/** '' and empty match everything; what is given must all match. */
export type ContainerFilter = {
  readonly id: string
  readonly podId: string
  readonly state?: ContainerState
  readonly labels: Dict
}

/** The containers of the node: one method for each call of the CRI, each of which may come again at any time. */
export class ContainerService {
  readonly #context: ContainerContext
  readonly #exits: Exits
  readonly #stops: Stops
  readonly #stats: ContainerStatsReader
  readonly #creates = new SingleFlight<string>('never')
  readonly #starts = new SingleFlight<void>('never')
  readonly #removes = new SingleFlight<void>('never')
  /** Of this daemon's starts that succeeded: whether a caller has its answer. */
  readonly #answered = new Map<string, boolean>()
  /** Configurations of creates under way, by key. */
  readonly #creating = new Map<string, ContainerConfig>()

  constructor(context: ContainerContext, exits: Exits, stats: ContainerStatsReader) {
    this.#context = context
    this.#exits = exits
    this.#stops = new Stops(context, exits)
    this.#stats = stats
  }

  /**
   * A call with the key of one under way joins it; one whose answer never reached its caller gets that answer. A
   * caller that leaves does not end the work.
   */
  async create(podIdOrPrefix: string, config: ContainerConfig, signal: AbortSignal): Promise<string> {
    const podId = this.#context.catalog.findPod(podIdOrPrefix)?.id ?? podIdOrPrefix
    const key = containerKey(podId, config.metadata)
    const inFlight = this.#creating.get(key)
    if (inFlight !== undefined && !sameContent(inFlight, config)) throw this.#duplicate(podId, config)
    const id = await this.#creates.run(key, signal, async () => {
      this.#creating.set(key, config)
      try {
        return (
          (await this.#reuse(key, podId, config)) ??
          (await createContainer(this.#context, this.#exits, podId, config))
        )
      } finally {
        this.#creating.delete(key)
      }
    })
    this.#deliver(id)
    return id
  }

  /**
   * A call that comes while one is under way joins it; one whose answer never reached its caller, or was a daemon's
   * that has ended since, gets it once.
   */
  async start(idOrPrefix: string, signal: AbortSignal): Promise<void> {
    const { id } = requireContainer(this.#context.catalog, idOrPrefix)
    await this.#starts.run(id, signal, async () => {
      await startContainer(this.#context, this.#exits, id, container => this.#isStarted(container))
      this.#answered.set(id, false)
    })
    this.#answered.set(id, true)
  }

  #isStarted({ id, phase }: Container): boolean {
    const answered = this.#answered.get(id)
    return answered === undefined ? phase === 'running' : !answered
  }

  stop(idOrPrefix: string, timeoutSeconds: number, signal?: AbortSignal): Promise<void> {
    return this.#stops.stop(idOrPrefix, timeoutSeconds, signal)
  }

  async remove(idOrPrefix: string, signal?: AbortSignal): Promise<void> {
    const id = this.#context.catalog.findContainer(idOrPrefix)?.id
    if (id === undefined) return
    await this.#removes.run(id, signal, () => this.#remove(id))
  }

  /** One that has begun is brought to its end, also if nobody asks again. */
  async #remove(id: string): Promise<void> {
    try {
      await removeContainer(this.#context, this.#stops, id)
      this.#stats.forget(id)
      this.#answered.delete(id)
    } catch (error) {
      if (this.#context.catalog.container(id)?.phase === 'removing') {
        this.#context.retries.later(`removing container ${id}`, () => this.remove(id))
      }
      throw error
    }
  }

  /** @throws BerthError not-found */
  status(idOrPrefix: string): ContainerStatus {
    const container = requireContainer(this.#context.catalog, idOrPrefix)
    return { container, state: stateOf(container) ?? 'unknown' }
  }

  list(filter: ContainerFilter): Container[] {
    const { catalog } = this.#context
    const podId = filter.podId === '' ? '' : catalog.findPod(filter.podId)?.id
    if (podId === undefined) return []
    const one = filter.id === '' ? undefined : catalog.findContainer(filter.id)
    const candidates = filter.id === '' ? catalog.containers() : one === undefined ? [] : [one]
    const labels = Object.entries(filter.labels)
    const found: Container[] = []
    for (const container of candidates) {
      const state = stateOf(container)
      if (state === undefined || (filter.state !== undefined && state !== filter.state)) continue
      if (podId !== '' && container.podId !== podId) continue
      if (labels.every(([key, value]) => container.config.labels[key] === value)) found.push(container)
    }
    return found
  }

  /** What `crictl inspect` shows below `info`. */
  verbose(idOrPrefix: string): Record<string, unknown> {
    const container = requireContainer(this.#context.catalog, idOrPrefix)
    return {
      sandboxID: container.podId,
      pid: container.phase === 'running' || container.phase === 'created' ? (container.init?.pid ?? 0) : 0,
      runtimeSpec: this.#specOf(container),
      privileged: container.config.security.privileged,
      snapshotKey: container.id,
      monitorPid: container.monitor?.pid ?? 0,
      phase: container.phase,
    }
  }

  updateResources(idOrPrefix: string, resources: LinuxResources): Promise<void> {
    return updateContainer(this.#context, idOrPrefix, resources)
  }

  async reopenLog(idOrPrefix: string): Promise<void> {
    const { id } = requireContainer(this.#context.catalog, idOrPrefix)
    await reopenLog(this.#context, pathsOf(this.#context, id), id)
  }

  async execSync(
    idOrPrefix: string,
    command: readonly string[],
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<{ stdout: Buffer; stderr: Buffer; exitCode: number }> {
    const result = await execSync(this.#context, idOrPrefix, command, timeoutSeconds, signal)
    return { stdout: result.stdout, stderr: result.stderr, exitCode: result.code }
  }

  /**
   * Before a client is given a way in, and again when it comes.
   * @throws BerthError not-found; precondition if it cannot be, or if `tty` is not what its configuration says (attach)
   */
  requireStreamable(idOrPrefix: string, use: 'exec' | 'attach', tty: boolean): Container {
    return use === 'exec'
      ? requireRunning(this.#context, idOrPrefix)
      : requireAttachable(this.#context, idOrPrefix, tty)
  }

  /**
   * Runs a command for a connected client; `signal` is its leaving.
   * @returns the exit code, 128 + signal for signals, after stdout and stderr were ended
   */
  exec(
    idOrPrefix: string,
    command: readonly string[],
    tty: boolean,
    channels: Channels,
    signal: AbortSignal,
  ): Promise<number> {
    return execStream(this.#context, idOrPrefix, command, tty, channels, signal)
  }

  /** Returns when the container's output has ended, or the client has left or detached. */
  attach(idOrPrefix: string, tty: boolean, channels: Channels, signal: AbortSignal): Promise<void> {
    return attachContainer(this.#context, idOrPrefix, tty, channels, signal)
  }

  async stats(idOrPrefix: string): Promise<ContainerStats> {
    return this.#stats.of(requireContainer(this.#context.catalog, idOrPrefix))
  }

  /** Of running containers only. */
  async listStats(filter: Omit<ContainerFilter, 'state'>): Promise<ContainerStats[]> {
    return await this.#stats.ofAll(this.list({ ...filter, state: 'running' }))
  }

  /** Creates, starts and removals under way, for a shutdown that lets them finish. */
  async settled(): Promise<void> {
    await Promise.all([this.#creates.settled(), this.#starts.settled(), this.#removes.settled()])
  }

  /** The id of a container with this key, if it is one that its caller never heard of. */
  async #reuse(key: string, podId: string, config: ContainerConfig): Promise<string | undefined> {
    const { catalog } = this.#context
    const existing = catalog.containerByKey(key)
    if (existing === undefined) return undefined
    if (existing.phase === 'creating') {
      // Its undo failed. Once more: the key is free when nothing of it is left.
      await this.#context.locks.run(existing.id, () => undoContainer(this.#context, existing))
      catalog.deleteContainer(existing.id)
      return undefined
    }
    if (existing.delivered || !sameContent(existing.config, config)) throw this.#duplicate(podId, config)
    return existing.id
  }

  #duplicate(podId: string, config: ContainerConfig): BerthError {
    const { name, attempt } = config.metadata
    const existing = this.#context.catalog.containerByKey(containerKey(podId, config.metadata))
    const doing = existing && this.#context.timeline.describe(podId, existing.id)
    return new BerthError(
      'exists',
      `container ${name} (attempt ${attempt}) exists in pod ${podId}${existing === undefined ? '' : ` as ${existing.id}`}` +
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
        if (catalog.container(id)?.delivered === false) catalog.updateContainer(id, { delivered: true })
      } catch (error) {
        log.warn(
          { containerId: id, error: messageOf(error) },
          'that a container was delivered could not be recorded',
        )
      }
    })
  }

  #specOf(container: Container): OciSpec | undefined {
    const { bundle, persist } = pathsOf(this.#context, container.id)
    for (const directory of [bundle, persist]) {
      try {
        return JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as OciSpec
      } catch {
        // The bundle goes when the container ends, and then the kept copy is there; neither is essential.
      }
    }
    return undefined
  }
}
