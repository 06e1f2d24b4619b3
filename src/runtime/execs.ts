import { BerthError, internal, precondition } from '../base/errors.ts'
import type { OciProcess } from '../model/oci.ts'
import { Capture, OutputBudget } from './capture.ts'
import type { Channels, TerminalSize } from './channels.ts'
import { DRAIN_MS, Exec, type Started } from './exec.ts'
import { runFor, WindowSize } from './exec-stream.ts'
import type { OciCli } from './oci-cli.ts'
import type { ExecCommand, ExecRequest, ExecResult, StreamRequest } from './runtime.ts'
import { within } from './within.ts'

/** What all that run at once keep of their output: probes print lines, and few print megabytes. */
const output = new OutputBudget(256 * 2 ** 20)

/** A run directory that cannot be written would hold up every probe for as many tries; the next start removes the rest. */
const MAX_UNFORGOTTEN = 16
const FORGET_RETRY_MS = 5000

/** Processes that run in containers beside the first one. */
export class Execs {
  readonly #cli: OciCli
  readonly #running = new Map<string, Set<Exec>>()
  /** Containers that are being stopped; forgotten when they are removed. */
  readonly #refused = new Set<string>()
  /** Ended, with files that could not be removed: tried again soon, with the next one that ends, by the next start. */
  readonly #unforgotten = new Set<Exec>()
  #forgetTimer: NodeJS.Timeout | undefined

  constructor(cli: OciCli) {
    this.#cli = cli
  }

  /** Runs it to its end and keeps what it writes. */
  run(request: ExecRequest): Promise<ExecResult> {
    return this.#track(request, request.signal, exec => capture(exec, request))
  }

  /** Runs it for a client that reads and writes meanwhile. @returns its exit code */
  stream(request: StreamRequest, channels: Channels, signal: AbortSignal): Promise<number> {
    const size = new WindowSize(channels)
    const { process, killAfterMs } = request
    const command = { ...request, process: withSize(process, size.current) }
    return this.#track(command, signal, exec => runFor(exec, channels, size, killAfterMs, signal))
  }

  /** Kills those of a container and refuses new ones. */
  end(containerId: string): void {
    this.#refused.add(containerId)
    for (const exec of this.#running.get(containerId) ?? []) {
      exec.stop(precondition(`container ${containerId} is being stopped`))
    }
  }

  /** Of those that run. */
  directories(): string[] {
    return [...this.#running.values()].flatMap(execs => [...execs].map(exec => exec.directory))
  }

  forget(containerId: string): void {
    this.#refused.delete(containerId)
  }

  async #track<T>(
    command: ExecCommand,
    signal: AbortSignal | undefined,
    run: (exec: Exec) => Promise<T>,
  ): Promise<T> {
    const { containerId } = command
    if (this.#refused.has(containerId)) throw precondition(`container ${containerId} is being stopped`)
    if (signal?.aborted === true) throw cancelled(signal)
    const exec = new Exec(this.#cli, command)
    const siblings = this.#running.get(containerId) ?? new Set()
    this.#running.set(containerId, siblings.add(exec))
    try {
      return await run(exec)
    } finally {
      siblings.delete(exec)
      if (siblings.size === 0) this.#running.delete(containerId)
      this.#forgetFiles([...this.#unforgotten, exec])
    }
  }

  /** What the command answered stands, whatever becomes of its files. */
  #forgetFiles(execs: readonly Exec[]): void {
    for (const ended of execs) {
      try {
        ended.forget()
        this.#unforgotten.delete(ended)
      } catch {
        if (this.#unforgotten.size < MAX_UNFORGOTTEN) this.#unforgotten.add(ended)
      }
    }
    if (this.#unforgotten.size === 0) return
    this.#forgetTimer ??= setTimeout(() => {
      this.#forgetTimer = undefined
      this.#forgetFiles([...this.#unforgotten])
    }, FORGET_RETRY_MS).unref()
  }
}

function withSize(process: OciProcess, size: TerminalSize | undefined): OciProcess {
  if (process.terminal !== true || size === undefined) return process
  return { ...process, consoleSize: { width: size.width, height: size.height } }
}

function cancelled(signal: AbortSignal | undefined): BerthError {
  return new BerthError('cancelled', 'exec: cancelled', signal?.reason)
}

async function capture(exec: Exec, { timeoutMs, maxOutput, signal }: ExecRequest): Promise<ExecResult> {
  const deadline = timeoutMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs
  const late = () => exec.stop(new BerthError('deadline', `command timed out after ${timeoutMs} ms`))
  const timer = timeoutMs === 0 ? undefined : setTimeout(late, timeoutMs)
  const abort = () => exec.stop(cancelled(signal))
  signal?.addEventListener('abort', abort, { once: true })
  try {
    const started = await exec.start(false, true)
    if (started.stdout === undefined) throw internal('exec: a process without a terminal has an output')
    const stdout = new Capture(started.stdout, maxOutput, output)
    const stderr = new Capture(started.stderr, maxOutput, output)
    try {
      const code = await untilEnd(exec, started)
      clearTimeout(timer) // it ended in time; from here on the deadline only shortens the wait
      const patience = Math.max(0, Math.min(DRAIN_MS, deadline - performance.now()))
      await within(patience, Promise.race([Promise.all([stdout.ended, stderr.ended]), exec.stopped]))
      return { code, stdout: stdout.bytes, stderr: stderr.bytes }
    } finally {
      stdout.close()
      stderr.close()
    }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/** Its exit code, or the reason of `stop` after it was killed. */
async function untilEnd(exec: Exec, { exited }: Started): Promise<number> {
  const end = await Promise.race([exited, exec.stopped])
  if (!(end instanceof BerthError)) return end
  await exec.kill()
  throw end
}
