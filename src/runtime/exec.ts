import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { sleep } from '../base/clock.ts'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal, precondition } from '../base/errors.ts'
import { isAlive, processRef, watchExit } from '../os/processes.ts'
import { type Child, start } from '../os/spawn.ts'
import { Capture } from './capture.ts'
import type { OciCli } from './oci-cli.ts'
import { ociJson } from './oci-json.ts'
import { letGoOfPipes } from './pipes.ts'
import { killTree } from './process-tree.ts'
import type { ExecRequest, ExecResult } from './runtime.ts'
import { readableError } from './text.ts'
import { within } from './within.ts'

/**
 * How long output is read after the process has ended: what it left running may hold its pipes for good. A request
 * with an earlier deadline is answered at that.
 */
const DRAIN_MS = 10_000

/** When an exec is looked at closer: by then most have ended, and need nothing more. */
const LOOK_MS = 250

/** How long the runtime may take to end once nothing holds it. */
const RUNTIME_END_MS = 2000

/** Processes that run in containers beside the first one, each under the runtime's own `exec`. */
export class Execs {
  readonly #cli: OciCli
  readonly #running = new Map<string, Set<Exec>>()
  /** Containers that are being stopped; forgotten when they are removed. */
  readonly #refused = new Set<string>()

  constructor(cli: OciCli) {
    this.#cli = cli
  }

  async run(request: ExecRequest): Promise<ExecResult> {
    const { containerId, signal } = request
    if (this.#refused.has(containerId)) throw precondition(`container ${containerId} is being stopped`)
    if (signal?.aborted === true) throw new BerthError('cancelled', 'exec: cancelled', signal.reason)
    const exec = new Exec(this.#cli, request)
    const siblings = this.#running.get(containerId) ?? new Set()
    this.#running.set(containerId, siblings.add(exec))
    try {
      return await exec.run()
    } finally {
      siblings.delete(exec)
      if (siblings.size === 0) this.#running.delete(containerId)
    }
  }

  /** Kills those of a container and refuses new ones. */
  end(containerId: string): void {
    this.#refused.add(containerId)
    for (const exec of this.#running.get(containerId) ?? []) {
      exec.stop(precondition(`container ${containerId} is being stopped`))
    }
  }

  forget(containerId: string): void {
    this.#refused.delete(containerId)
  }
}

class Exec {
  readonly #cli: OciCli
  readonly #request: ExecRequest
  readonly #pidFile: string
  readonly #processFile: string
  readonly #stopped = Promise.withResolvers<BerthError>()
  #timer: NodeJS.Timeout | undefined

  constructor(cli: OciCli, request: ExecRequest) {
    this.#cli = cli
    this.#request = request
    this.#pidFile = join(request.directory, 'pid')
    this.#processFile = join(request.directory, 'process.json')
  }

  /** Ends it with this error, after its whole tree is dead. */
  stop(error: BerthError): void {
    this.#stopped.resolve(error)
  }

  async run(): Promise<ExecResult> {
    const { process, timeoutMs, signal } = this.#request
    const abort = () => this.stop(new BerthError('cancelled', 'exec: cancelled', signal?.reason))
    signal?.addEventListener('abort', abort, { once: true })
    const deadline = timeoutMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs
    const late = () => this.stop(new BerthError('deadline', `command timed out after ${timeoutMs} ms`))
    if (timeoutMs !== 0) this.#timer = setTimeout(late, timeoutMs)
    try {
      effectSync('runtime', 'write-process', this.#processFile, () => {
        writeFileSync(this.#processFile, ociJson(process), { mode: 0o600 })
      })
      return await this.#runProcess(deadline)
    } finally {
      clearTimeout(this.#timer)
      signal?.removeEventListener('abort', abort)
      for (const file of [this.#processFile, this.#pidFile]) rmSync(file, { force: true })
    }
  }

  async #runProcess(deadline: number): Promise<ExecResult> {
    const { containerId, maxOutput } = this.#request
    const files = ['--process', this.#processFile, '--pid-file', this.#pidFile]
    const child = start(this.#cli.path, {
      args: [...this.#cli.globalArgs, 'exec', ...files, containerId],
      env: this.#cli.env,
      fds: ['null', 'pipe-read', 'pipe-read'],
    })
    const stdout = new Capture(child.streams[1] as Readable, maxOutput)
    const stderr = new Capture(child.streams[2] as Readable, maxOutput)
    const done = new AbortController()
    try {
      const ended = this.#ended(child, [stdout, stderr], deadline, done.signal)
      ended.catch(() => undefined) // unheard when it was stopped first
      const end = await Promise.race([ended, this.#stopped.promise])
      if (end instanceof BerthError) {
        await this.#kill(child)
        throw end
      }
      if (end !== 0 && this.#pid() === undefined) {
        throw internal(`${this.#cli.name} exec: ${readableError(stderr.bytes.toString())}`)
      }
      return { code: end, stdout: stdout.bytes, stderr: stderr.bytes }
    } finally {
      done.abort()
      stdout.close()
      stderr.close()
    }
  }

  /** The exit code, after the output was read: to its end, or as long as `DRAIN_MS` and the deadline allow. */
  async #ended(child: Child, streams: Capture[], deadline: number, done: AbortSignal): Promise<number> {
    const drained = Promise.all(streams.map(stream => stream.ended))
    const quick = await Promise.race([child.exited, this.#processEnded(done)])
    clearTimeout(this.#timer) // it ended in time; from here on the deadline only shortens the wait
    const patience = Math.max(0, Math.min(DRAIN_MS, deadline - performance.now()))
    if (quick !== undefined) {
      await within(patience, drained)
      return quick
    }
    const code = await within(patience, child.exited)
    if (code !== undefined) return code
    // The runtime copies the output itself and waits for the end of pipes that a child of the process holds.
    for (const stream of streams) stream.close()
    letGoOfPipes(child.pid)
    const released = await within(RUNTIME_END_MS, child.exited)
    if (released !== undefined) return released
    child.kill('SIGKILL')
    throw internal(`${this.#cli.name} exec: the command has ended, but its exit code is not to be had`)
  }

  /** Resolves when the process has ended although the runtime still runs. */
  async #processEnded(done: AbortSignal): Promise<undefined> {
    for (;;) {
      await sleep(LOOK_MS, done)
      const pid = this.#pid()
      if (pid === undefined) continue
      const ref = processRef(pid)
      if (ref === undefined || !isAlive(ref)) return undefined
      const { promise, resolve } = Promise.withResolvers<void>()
      using _watch = watchExit(ref, resolve)
      done.addEventListener('abort', () => resolve(), { once: true })
      await promise
      return undefined
    }
  }

  /** The runtime's process is the root of all that the exec started. */
  async #kill(child: Child): Promise<void> {
    const runtime = processRef(child.pid)
    if (runtime !== undefined) await killTree(runtime, this.#pid())
    await child.exited
  }

  /** The runtime writes it once the process runs: without one it never did. */
  #pid(): number | undefined {
    try {
      const pid = Number(readFileSync(this.#pidFile, 'utf8'))
      return Number.isInteger(pid) && pid > 1 ? pid : undefined
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }
}
