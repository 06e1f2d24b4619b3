import { nowNs } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from './log.ts'

/** Whose step it is. */
export type StepContext = {
  /** '' for what belongs to no pod, such as a pull: timed and logged, not kept. */
  readonly podId: string
  readonly containerId?: string
  /** The RPC or the background work: `RunPodSandbox`, `exit`. Constant per call site. */
  readonly operation: string
}

export type StepOptions = {
  /** What the step acts on: a path, a network. Never a secret. */
  readonly detail?: string
  /** The step waits for something that may take its time (a grace period): never called slow. */
  readonly waits?: boolean
}

export type TimelineEntry = StepContext & {
  /** Constant per call site: `cni-add`. */
  readonly step: string
  /** Wall clock, ns since 1970. */
  readonly startNs: bigint
  readonly durationNs: bigint
  readonly detail?: string
  /** What went wrong, if anything did. */
  readonly error?: string
}

export type CurrentStep = {
  readonly operation: string
  readonly step: string
  readonly containerId?: string
  readonly startNs: bigint
  /** For how long it has been running. */
  readonly runningMs: number
}

/** Told about every finished step. */
export type StepObserver = {
  onStep(operation: string, step: string, seconds: number, failed: boolean): void
}

export type TimelineOptions = {
  readonly log: Log
  readonly observer?: StepObserver
  /** Entries in all; the pods that were touched longest ago lose theirs first. */
  readonly maxEntries: number
  /** A longer step is logged as a warning; 0 never. */
  readonly slowMs: number
}

/** Of one operation of one pod: a probe every second must not push out how the pod came up. */
const MAX_PER_OPERATION = 64

type Running = StepContext & { readonly step: string; readonly startNs: bigint; readonly began: bigint }

type PodEntries = Map<string, TimelineEntry[]>

/** Times, logs and remembers the steps of operations, in memory and bounded. */
export class Timeline {
  /** Adjustable while it runs. */
  slowMs: number
  readonly #log: Log
  readonly #observer: StepObserver | undefined
  readonly #maxEntries: number
  /** By pod, least recently written first. */
  readonly #pods = new Map<string, PodEntries>()
  readonly #running = new Map<string, Set<Running>>()
  #entries = 0

  constructor(options: TimelineOptions) {
    this.#log = options.log
    this.#observer = options.observer
    this.#maxEntries = options.maxEntries
    this.slowMs = options.slowMs
  }

  /** Runs one step of an operation; its outcome is the step's. */
  async step<T>(
    context: StepContext,
    step: string,
    work: () => Promise<T> | T,
    options: StepOptions = {},
  ): Promise<T> {
    const running = this.#begin(context, step)
    try {
      const result = await work()
      this.#end(running, options, undefined)
      return result
    } catch (error) {
      this.#end(running, options, error)
      throw error
    }
  }

  /** Finished steps of a pod, in the order of their beginnings. */
  of(podId: string): TimelineEntry[] {
    const entries = [...(this.#pods.get(podId)?.values() ?? [])].flat()
    return entries.sort((a, b) => Number(a.startNs - b.startNs))
  }

  /** The innermost step that the pod, or one container of it, is in. */
  current(podId: string, containerId?: string): CurrentStep | undefined {
    const running = [...(this.#running.get(podId) ?? [])]
    const last = running.findLast(entry => containerId === undefined || entry.containerId === containerId)
    if (last === undefined) return undefined
    const { operation, step, startNs, began } = last
    const runningMs = Number(process.hrtime.bigint() - began) / 1e6
    return {
      operation,
      step,
      startNs,
      runningMs,
      ...(last.containerId === undefined ? {} : { containerId: last.containerId }),
    }
  }

  /** `RunPodSandbox is in step cni-add for 43 s`, for errors of those who wait; '' when nothing runs. */
  describe(podId: string, containerId?: string): string {
    const current = this.current(podId, containerId)
    if (current === undefined) return ''
    return `${current.operation} is in step ${current.step} for ${seconds(current.runningMs)}`
  }

  #begin(context: StepContext, step: string): Running {
    const running: Running = { ...context, step, startNs: nowNs(), began: process.hrtime.bigint() }
    const steps = this.#running.get(context.podId)
    if (steps === undefined) this.#running.set(context.podId, new Set([running]))
    else steps.add(running)
    return running
  }

  #end(running: Running, options: StepOptions, failure: unknown): void {
    const { podId, containerId, operation, step, startNs, began } = running
    const durationNs = process.hrtime.bigint() - began
    const steps = this.#running.get(podId)
    steps?.delete(running)
    if (steps?.size === 0) this.#running.delete(podId)
    const context = { podId, operation, ...(containerId === undefined ? {} : { containerId }) }
    const outcome = failure === undefined ? {} : { error: messageOf(failure) }
    const detail = options.detail === undefined ? {} : { detail: options.detail }
    this.#keep({ ...context, step, startNs, durationNs, ...detail, ...outcome })
    const ms = Number(durationNs) / 1e6
    this.#observer?.onStep(operation, step, ms / 1000, failure !== undefined)
    const fields = { ...context, step, ms: Math.round(ms * 10) / 10, ...detail, ...outcome }
    const slow = this.slowMs > 0 && ms >= this.slowMs && options.waits !== true
    if (slow) this.#log.warn(fields, 'a step was slow')
    else this.#log.debug(fields, failure === undefined ? 'step done' : 'step failed')
  }

  #keep(entry: TimelineEntry): void {
    if (entry.podId === '' || this.#maxEntries === 0) return
    const operations: PodEntries = this.#pods.get(entry.podId) ?? new Map()
    this.#pods.delete(entry.podId)
    this.#pods.set(entry.podId, operations)
    const entries = operations.get(entry.operation) ?? []
    operations.set(entry.operation, entries)
    entries.push(entry)
    this.#entries++
    if (entries.length > MAX_PER_OPERATION) {
      entries.shift()
      this.#entries--
    }
    while (this.#entries > this.#maxEntries) this.#forgetOldestPod()
  }

  #forgetOldestPod(): void {
    const oldest = this.#pods.entries().next().value
    if (oldest === undefined) return
    const [podId, operations] = oldest
    for (const entries of operations.values()) this.#entries -= entries.length
    this.#pods.delete(podId)
  }
}

function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`
}
