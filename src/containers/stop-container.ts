import { sleep } from '../base/clock.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import { isAlive, signalProcess } from '../os/processes.ts'
import { parseSignal, signalNumber } from '../os/signals.ts'
import { type ContainerContext, runtimeOf, stepOf } from './context.ts'
import type { Exits } from './exits.ts'

/** After SIGKILL a process ends when the kernel lets it; one in uninterruptible sleep may take this long. */
const KILL_WAIT_MS = 120_000
/** First pause before killing again, doubled each time: new members may appear between two looks. */
const KILL_RETRY_MS = 50
const KILL_RETRY_MAX_MS = 2_000

const SIGTERM = signalNumber('SIGTERM')
const SIGKILL = signalNumber('SIGKILL')

type Stop = {
  /** performance.now() at which the grace period ends; later calls may bring it forward. */
  deadline: number
  /** Ends the pause of the grace period, so that the deadline is looked at again. */
  hurry: () => void
  readonly done: Promise<void>
}

/**
 * StopContainer. The signal is sent once; every caller waits for the same end, and one with a shorter timeout
 * shortens the wait for all. No lock is held meanwhile, and a caller that leaves changes nothing.
 */
export class Stops {
  readonly #context: ContainerContext
  readonly #exits: Exits
  readonly #running = new Map<string, Stop>()

  constructor(context: ContainerContext, exits: Exits) {
    this.#context = context
    this.#exits = exits
  }

  /** Returns when the process is dead and its exit recorded. An unknown or ended container is stopped already. */
  async stop(idOrPrefix: string, timeoutSeconds: number, signal?: AbortSignal): Promise<void> {
    const container = this.#context.catalog.findContainer(idOrPrefix)
    if (container === undefined) return
    const deadline = performance.now() + Math.max(0, timeoutSeconds) * 1000
    let stop = this.#running.get(container.id)
    if (stop === undefined) {
      stop = this.#begin(container, deadline)
    } else if (deadline < stop.deadline) {
      stop.deadline = deadline
      stop.hurry()
    }
    await (signal === undefined ? stop.done : Promise.race([stop.done, rejection(signal)]))
  }

  #begin(container: Container, deadline: number): Stop {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    promise.catch(() => undefined) // all callers may have left by then
    const stop: Stop = { deadline, hurry: () => undefined, done: promise }
    this.#running.set(container.id, stop)
    this.#context.timeline
      .step(stepOf(container, 'StopContainer'), 'stop', () => this.#stop(container.id, stop), { waits: true })
      .finally(() => this.#running.delete(container.id))
      .then(resolve, reject)
    return stop
  }

  async #stop(id: string, stop: Stop): Promise<void> {
    // A create or start under way ends first; what it leaves is what is stopped.
    await this.#exits.settle(id)
    const container = this.#context.catalog.container(id)
    if (container === undefined || !hasProcess(container)) return
    if (container.phase === 'running' && stop.deadline > performance.now()) {
      if (container.init !== undefined)
        signalProcess(container.init, parseSignal(container.stopSignal) ?? SIGTERM)
      if (await this.#graceEnds(id, stop)) return
    }
    await this.#kill(container)
  }

  /** True when the container ended in time. */
  async #graceEnds(id: string, stop: Stop): Promise<boolean> {
    for (;;) {
      const left = stop.deadline - performance.now()
      if (left <= 0) return false
      const turn = new AbortController()
      stop.hurry = () => turn.abort()
      const exit = this.#exits.waitFor(id, turn.signal).then(
        () => true,
        () => false,
      )
      const pause = sleep(left, turn.signal).then(
        () => false,
        () => false,
      )
      const done = await Promise.race([exit, pause])
      turn.abort()
      if (done) return true
    }
  }

  async #kill(container: Container): Promise<void> {
    const { cgroups, log } = this.#context
    const runtime = runtimeOf(this.#context, container)
    runtime.endExecs(container.id)
    const until = performance.now() + KILL_WAIT_MS
    const leave = new AbortController()
    using _waiting = { [Symbol.dispose]: () => leave.abort() }
    const ended = this.#exits.waitFor(container.id, leave.signal)
    ended.catch(() => undefined)
    for (let pause = KILL_RETRY_MS; ; pause = Math.min(pause * 2, KILL_RETRY_MAX_MS)) {
      if (container.init !== undefined) signalProcess(container.init, SIGKILL)
      const done = await Promise.race([ended.then(() => true), sleep(pause).then(() => false)])
      if (done) return
      if (container.init !== undefined && isAlive(container.init)) {
        // Perhaps frozen: a paused container takes no signal until it is thawed.
        await runtime.resume(container.id).catch(() => undefined)
        // One that hangs in the kernel dies when that lets it.
        const problem = await cgroups.kill(container.cgroup).then(() => undefined, messageOf)
        log.warn(
          { containerId: container.id, error: problem },
          'a killed container is still alive; killing again',
        )
      }
      const obstacle = this.#exits.obstacle(container.id)
      if (obstacle !== undefined) throw obstacle
      this.#exits.look(container.id)
      if (performance.now() > until) {
        throw new BerthError(
          'deadline',
          `container ${container.id} did not end within ${KILL_WAIT_MS / 1000} s of SIGKILL (pid ${container.init?.pid})`,
        )
      }
    }
  }
}

function hasProcess(container: Container): boolean {
  return container.phase === 'created' || container.phase === 'running' || container.phase === 'unknown'
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const leave = () =>
      reject(new BerthError('cancelled', 'the caller gave up; the container is still being stopped'))
    if (signal.aborted) leave()
    else signal.addEventListener('abort', leave, { once: true })
  })
}
