import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** Objects by state, counted when somebody asks. */
export type StateCounts = () => Readonly<Record<string, number>>

// 1 ms is a list from memory, 4 min a RunPodSandbox that kubelet gives up.
const RPC_BUCKETS = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 240]
const STEP_BUCKETS = [0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
// An image that is here already takes one request; one of 10 GB over a slow line an hour.
const PULL_BUCKETS = [0.05, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600]

/** What the daemon counts, in its own registry. Labels have few values each: never ids. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #rpcs: Histogram<'method' | 'code'>
  readonly #steps: Histogram<'operation' | 'step'>
  readonly #failures: Counter<'operation' | 'step'>
  readonly #sessions: Counter<'kind' | 'outcome'>
  readonly #pulls: Histogram
  readonly #pullFailures: Counter<'cause'>
  readonly #pullBytes: Counter<'source'>
  readonly #eventLosses: Counter<'loss'>

  constructor() {
    const registers = [this.#registry]
    this.#rpcs = new Histogram({
      name: 'berth_rpc_duration_seconds',
      help: 'Calls of the CRI and of the admin interface, by method and gRPC code',
      labelNames: ['method', 'code'],
      buckets: RPC_BUCKETS,
      registers,
    })
    this.#steps = new Histogram({
      name: 'berth_step_duration_seconds',
      help: 'Steps of operations',
      labelNames: ['operation', 'step'],
      buckets: STEP_BUCKETS,
      registers,
    })
    this.#failures = new Counter({
      name: 'berth_step_failures_total',
      help: 'Steps of operations that ended in an error',
      labelNames: ['operation', 'step'],
      registers,
    })
    this.#sessions = new Counter({
      name: 'berth_stream_sessions_total',
      help: 'Exec, attach and port-forward sessions that have ended, by kind and outcome',
      labelNames: ['kind', 'outcome'],
      registers,
    })
    this.#pulls = new Histogram({
      name: 'berth_pull_duration_seconds',
      help: 'Pulls of images that succeeded',
      buckets: PULL_BUCKETS,
      registers,
    })
    this.#pullFailures = new Counter({
      name: 'berth_pull_failures_total',
      help: 'Pulls of images that failed, by cause',
      labelNames: ['cause'],
      registers,
    })
    this.#pullBytes = new Counter({
      name: 'berth_pull_bytes_total',
      help: 'Compressed bytes of layers, from the network and from what an interrupted download had left',
      labelNames: ['source'],
      registers,
    })
    this.#eventLosses = new Counter({
      name: 'berth_events_dropped_total',
      help: "Events that slow readers never got; for coalesced ones a later event had the pod's whole status",
      labelNames: ['loss'],
      registers,
    })
  }

  /** `code` as gRPC names it: `OK`, `NOT_FOUND`. */
  onCall(method: string, code: string, seconds: number): void {
    this.#rpcs.observe({ method, code }, seconds)
  }

  onStep(operation: string, step: string, seconds: number, failed: boolean): void {
    this.#steps.observe({ operation, step }, seconds)
    if (failed) this.#failures.inc({ operation, step })
  }

  /** `failure` as in images/pull-error.ts; undefined for a pull that succeeded. */
  onPull(seconds: number, failure: string | undefined): void {
    if (failure === undefined) this.#pulls.observe(seconds)
    else this.#pullFailures.inc({ cause: failure })
  }

  onDownload(networkBytes: number, keptBytes: number): void {
    this.#pullBytes.inc({ source: 'network' }, networkBytes)
    this.#pullBytes.inc({ source: 'kept' }, keptBytes)
  }

  /** `coalesced` or `lost`. */
  onEventLoss(loss: string): void {
    this.#eventLosses.inc({ loss })
  }

  /** Shows pods and containers by state, `berth_pods{state="ready"}`. */
  watchStates(pods: StateCounts, containers: StateCounts): void {
    this.#gauge('berth_pods', 'Pods by state', pods)
    this.#gauge('berth_containers', 'Containers by state', containers)
  }

  /** `kind` is exec, attach or portforward. */
  onSessionEnd(kind: string, outcome: string): void {
    this.#sessions.inc({ kind, outcome })
  }

  /** Shows open sessions by kind, `berth_stream_sessions{kind="exec"}`. */
  watchSessions(count: StateCounts): void {
    this.#gauge('berth_stream_sessions', 'Open exec, attach and port-forward sessions', count, 'kind')
  }

  /** Prometheus' text format. */
  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #gauge(name: string, help: string, count: StateCounts, label = 'state'): void {
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      collect() {
        this.reset()
        for (const [key, value] of Object.entries(count())) this.set({ [label]: key }, value)
      },
    })
  }
}
