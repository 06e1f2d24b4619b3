import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { latest, nowNs, sleep } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Container, ContainerExit, ExitReason } from '../model/container.ts'
import type { ProcessRef } from '../model/pod.ts'
import { writeFileAtomic } from '../os/files.ts'
import { isAlive, signalProcess, watchExit } from '../os/processes.ts'
import type { ExitRecord } from '../runtime/runtime.ts'
import { type ContainerContext, pathsOf, removeCgroups, runtimeOf, stepOf } from './context.ts'

/** How long the monitor may take from the end of the process to its exit file (it syncs the log in between). */
const EXIT_FILE_WAIT_MS = 5000
const EXIT_FILE_POLL_MS = 25

/** Who waits for a container to end waits for so many tries to write it down, which is a second or two. */
const RECORD_TRIES = 5
/** A disk that fails does so for every container that ends, at every look. */
const TELL_INTERVAL_MS = 60_000

/** Exit code of a container whose real one nobody knows. */
const UNKNOWN_CODE = 255
const KILLED_CODE = 137
const SIGKILL = 9

type Unrecorded = { readonly error: unknown; readonly tries: number; readonly toldAt: number }

/**
 * Learns that containers ended, writes it down and clears what they leave. The monitor's exit file is the truth;
 * file events, the monitor's end and a periodic scan are only hints to look, so none of them may be lost and any may
 * come twice.
 */
export class Exits {
  readonly #context: ContainerContext
  readonly #watches = new Map<string, Disposable>()
  readonly #waiters = new Map<string, Set<() => void>>()
  readonly #unmonitored = new Set<string>()
  readonly #unrecorded = new Map<string, Unrecorded>()

  constructor(context: ContainerContext) {
    this.#context = context
  }

  /** Follows a container that has a process. Safe to call again. */
  follow(container: Container): void {
    if (this.#watches.has(container.id)) return
    const process = container.monitor ?? container.init
    if (process === undefined) return
    this.#watches.set(
      container.id,
      watchExit(process, () => this.look(container.id)),
    )
  }

  /** A hint: something may have happened to this container. */
  look(id: string): void {
    this.settle(id).then(
      () => this.#unrecorded.delete(id),
      error => this.#failed(id, error),
    )
  }

  /** What keeps the exit of an ended container from being recorded, once it has been tried a few times. */
  obstacle(id: string): unknown {
    const failed = this.#unrecorded.get(id)
    return failed !== undefined && failed.tries >= RECORD_TRIES ? failed.error : undefined
  }

  #failed(id: string, error: unknown): void {
    if (this.#context.catalog.container(id) === undefined) return // removed meanwhile: nobody asks for it again
    const now = performance.now()
    const { tries = 0, toldAt = -TELL_INTERVAL_MS } = this.#unrecorded.get(id) ?? {}
    const isNews = now - toldAt >= TELL_INTERVAL_MS
    this.#unrecorded.set(id, { error, tries: tries + 1, toldAt: isNews ? now : toldAt })
    if (!isNews) return
    this.#context.log.error(
      { containerId: id, error: messageOf(error) },
      'the exit of a container could not be recorded',
    )
  }

  /** Records the container's exit if it has ended. Twice is as good as once. */
  settle(id: string): Promise<void> {
    return this.#context.locks.run(id, () => this.settleLocked(id))
  }

  /** The same for callers that hold the container's lock. */
  async settleLocked(id: string): Promise<void> {
    const container = this.#context.catalog.container(id)
    if (container === undefined) return
    if (container.phase !== 'created' && container.phase !== 'running' && container.phase !== 'unknown')
      return
    const exit = await this.#findExit(container)
    if (exit === undefined) return
    await this.record(container, exit)
  }

  /** Writes the exit down, announces it, then clears up. The caller holds the container's lock. */
  async record(container: Container, ended: ContainerExit): Promise<void> {
    const { catalog, events, log } = this.#context
    // The wall clock may have been set back since it began.
    const finishedAt = latest(ended.finishedAt, container.startedAt, container.createdAt)
    const exit = { ...ended, finishedAt }
    catalog.updateContainer(container.id, { phase: 'exited', exit })
    log.info(
      { containerId: container.id, podId: container.podId, exitCode: exit.code, reason: exit.reason },
      `container ${container.config.metadata.name} exited`,
    )
    events.emit('stopped', container.podId, container.id)
    this.#unfollow(container.id)
    for (const wake of this.#waiters.get(container.id) ?? []) wake()
    await this.clear(container)
  }

  /**
   * Removes what an ended container holds in the kernel: leftover processes, runtime state, cgroups, its mount. The
   * writable layer stays until the container is removed. What fails here is tried again later, and by RemoveContainer.
   */
  async clear(container: Container): Promise<void> {
    const { log, retries } = this.#context
    try {
      await this.#clear(container)
    } catch (error) {
      log.warn(
        { containerId: container.id, error: messageOf(error) },
        'an exited container is not fully cleared yet',
      )
      retries.later(`clearing container ${container.id}`, () => this.#clearAgain(container.id))
    }
  }

  async #clear(container: Container): Promise<void> {
    const { cgroups, snapshots, timeline, heavy } = this.#context
    const runtime = runtimeOf(this.#context, container)
    const paths = pathsOf(this.#context, container.id)
    await timeline.step(stepOf(container, 'exit'), 'runtime-delete', async () => {
      keepSpec(paths.bundle, paths.persist)
      await cgroups.kill(container.cgroup)
      await heavy.run(() => runtime.remove(container.id, paths))
    })
    await removeCgroups(this.#context, container)
    snapshots.unmountRootfs(container.id)
  }

  #clearAgain(id: string): Promise<void> {
    return this.#context.locks.run(id, async () => {
      const container = this.#context.catalog.container(id)
      if (container?.phase === 'exited') await this.#clear(container)
    })
  }

  /** Resolves when the container has no process any more, or rejects with the signal's reason. */
  async waitFor(id: string, signal: AbortSignal): Promise<void> {
    while (this.#lives(id)) {
      signal.throwIfAborted()
      const { promise, resolve } = Promise.withResolvers<void>()
      const waiters = this.#waiters.get(id) ?? new Set()
      this.#waiters.set(id, waiters.add(resolve))
      signal.addEventListener('abort', () => resolve(), { once: true })
      try {
        await promise
      } finally {
        waiters.delete(resolve)
        if (waiters.size === 0) this.#waiters.delete(id)
      }
    }
  }

  /** Looks at every container that should be alive: the timer behind the hints. */
  scan(): void {
    for (const container of this.#context.catalog.containers()) {
      if (container.phase === 'running' || container.phase === 'created') this.look(container.id)
    }
  }

  close(): void {
    for (const watch of this.#watches.values()) watch[Symbol.dispose]()
    this.#watches.clear()
  }

  #lives(id: string): boolean {
    const phase = this.#context.catalog.container(id)?.phase
    return phase === 'created' || phase === 'running' || phase === 'unknown'
  }

  #unfollow(id: string): void {
    this.#watches.get(id)?.[Symbol.dispose]()
    this.#watches.delete(id)
    this.#unmonitored.delete(id)
    this.#unrecorded.delete(id)
  }

  /** undefined: it lives. That it does is the truth, whatever an exit file says. */
  async #findExit(container: Container): Promise<ContainerExit | undefined> {
    const { init, monitor } = container
    if (init !== undefined && isAlive(init)) {
      if (monitor === undefined || isAlive(monitor)) return undefined
      if (container.phase === 'created') return this.#endUnmonitored(container, init)
      this.#followUnmonitored(container)
      return undefined
    }
    const { record, problem, isHung } = await this.#awaitRecord(container)
    if (record !== undefined) return await this.exitOf(container, record)
    const lost = !isHung && problem === undefined && container.phase !== 'unknown'
    return lostExit(
      lost ? 'MonitorLost' : 'Unknown',
      problem ??
        (isHung
          ? `its monitor did not record its exit within ${EXIT_FILE_WAIT_MS / 1000} s and was killed`
          : 'the process and its monitor ended without leaving an exit code'),
    )
  }

  /** The process has ended. If its monitor has not said how yet, it gets time for it; then it is ended, too. */
  async #awaitRecord(container: Container): Promise<ExitFinding & { readonly isHung: boolean }> {
    const { monitor } = container
    const until = performance.now() + EXIT_FILE_WAIT_MS
    for (;;) {
      // In this order: what a monitor writes before it ends is there when it has ended.
      const works = monitor !== undefined && isAlive(monitor)
      const found = readExit(this.#context, container)
      if (found.record !== undefined || !works) return { ...found, isHung: false }
      if (performance.now() > until) {
        signalProcess(monitor, SIGKILL)
        return { ...found, isHung: true }
      }
      await sleep(EXIT_FILE_POLL_MS)
    }
  }

  /** Started without a monitor its output would go nowhere, and its exit code be lost: it never is. */
  #endUnmonitored(container: Container, init: ProcessRef): ContainerExit {
    this.#context.log.error(
      { containerId: container.id, podId: container.podId, monitorPid: container.monitor?.pid },
      'the monitor of a created container is gone: it cannot be started any more and is killed',
    )
    signalProcess(init, SIGKILL)
    return lostExit('MonitorLost', 'its monitor ended before it was started')
  }

  /** Its exit code will be lost, its output is broken; it runs on until it ends or is stopped. */
  #followUnmonitored(container: Container): void {
    if (container.init === undefined || this.#unmonitored.has(container.id)) return
    this.#unfollow(container.id)
    this.#unmonitored.add(container.id)
    this.#watches.set(
      container.id,
      watchExit(container.init, () => this.look(container.id)),
    )
    this.#context.log.error(
      { containerId: container.id, podId: container.podId, monitorPid: container.monitor?.pid },
      'the monitor of a running container is gone: its log has stopped and its exit code will be unknown',
    )
  }

  /** What the monitor recorded, as it is told. */
  async exitOf(container: Container, record: ExitRecord): Promise<ContainerExit> {
    // The marker and the counter fire for any process of the cgroup; only a killed first process was the victim.
    const oom =
      record.code === KILLED_CODE &&
      (record.oom || (await this.#context.cgroups.wasOomKilled(container.cgroup)))
    return {
      code: record.code,
      reason: oom ? 'OOMKilled' : record.code === 0 ? 'Completed' : 'Error',
      message: '',
      finishedAt: record.finishedAt,
    }
  }
}

function lostExit(reason: ExitReason, message: string): ContainerExit {
  return { code: UNKNOWN_CODE, reason, message, finishedAt: nowNs() }
}

type ExitFinding = { readonly record: ExitRecord | undefined; readonly problem: string | undefined }

/** What the monitor has left, or what is wrong with it. */
export function readExit(context: ContainerContext, container: Container): ExitFinding {
  try {
    const record = runtimeOf(context, container).readExit(container.id, pathsOf(context, container.id))
    return { record, problem: undefined }
  } catch (error) {
    return { record: undefined, problem: messageOf(error) }
  }
}

/** The bundle goes with the runtime's state; an operator may still want to see what ran. */
function keepSpec(bundle: string, persist: string): void {
  try {
    writeFileAtomic(join(persist, 'config.json'), readFileSync(join(bundle, 'config.json')), 0o600)
  } catch {
    // Cleared before, or never made: there is nothing to keep. A full disk is no reason not to clear.
  }
}
