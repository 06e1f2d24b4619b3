import { existsSync, readFileSync, rmSync, statSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex, Readable } from 'node:stream'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal, invalid } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import { namesIn } from '../os/files.ts'
import { beganAfter, isAlive, processesWithArguments, processRef } from '../os/processes.ts'
import { type Child, run, start } from '../os/spawn.ts'
import { BUNDLE_FILES } from './bundle-files.ts'
import { Capture } from './capture.ts'
import type { OciCli } from './oci-cli.ts'
import { hasEnded, killTree } from './process-tree.ts'
import type { CreateRequest } from './runtime.ts'
import { readableError } from './text.ts'
import { within } from './within.ts'

/** The monitor's message is one line of JSON with up to 8 KiB of the runtime's words, escaped. */
const MAX_LINE = 64 * 1024

/** Room for the reason why the monitor itself did not start. */
const MAX_STDERR = 16 * 1024

/** Creating pulls in hooks and devices of the node; peers wait as long. */
const CREATE_LIMIT_MS = 240_000

/** From its exit to the end of what it printed, which is in the pipe by then. */
const DRAIN_MS = 100

/** A monitor that was told to end, or whose container is gone, needs a few ms; a hung one is killed. */
const MONITOR_END_MS = 5000

/** `S/<id>/attach` has to fit the 107 bytes of a socket address. */
const MAX_SOCKETS_DIR = 35

export type ConmonOptions = {
  /** Absolute. */
  readonly conmonPath: string
  /** Where it is by now, whenever it is asked who it is; without this, it stays where it was. */
  readonly findConmon?: () => string
  /** One file per exited container, tmpfs. */
  readonly exitsDir: string
  /** One link per container, tmpfs; a short path. */
  readonly socketsDir: string
  /** The whole environment of the monitor and, below it, of the runtime. */
  readonly env: Readonly<Record<string, string>>
  readonly systemdCgroup: boolean
  /** Leave out the fsync of the log at exit. */
  readonly noSyncLog: boolean
  readonly cgroups: Pick<Cgroups, 'add' | 'remove'>
  /** ms for a create; 4 minutes unless given. */
  readonly createLimitMs?: number
}

export type Processes = { readonly init: ProcessRef; readonly monitor: ProcessRef }

/**
 * The per-container monitor: owns the container's output, writes its log, reaps it and records its exit. It outlives
 * the daemon, so logs and exit codes do too.
 */
export class Conmon {
  readonly #options: ConmonOptions
  readonly #cli: OciCli
  #path: string

  constructor(options: ConmonOptions, cli: OciCli) {
    if (Buffer.byteLength(options.socketsDir) > MAX_SOCKETS_DIR) {
      throw new BerthError(
        'invalid',
        `${options.socketsDir}: the directory of attach sockets may be ${MAX_SOCKETS_DIR} bytes long at most`,
      )
    }
    this.#options = options
    this.#cli = cli
    this.#path = options.conmonPath
  }

  /** @throws BerthError precondition if it is missing or too old */
  async checkVersion(): Promise<void> {
    const { findConmon, env } = this.#options
    this.#path = findConmon?.() ?? this.#path
    const result = await run(this.#path, { args: ['--version'], env, timeoutMs: 10_000 })
    const match = /conmon version (\d+)\.(\d+)\.(\d+)/.exec(result.stdout.toString())
    const [major = 0, minor = 0, patch = 0] = match?.slice(1).map(Number) ?? []
    if (major > 2 || (major === 2 && (minor > 1 || (minor === 1 && patch >= 2)))) return
    const found = match === null ? readableError(result.stdout.toString()) : match[0]
    throw new BerthError('precondition', `${this.#path}: expected conmon 2.1.2 or later, found ${found}`)
  }

  /**
   * Starts a monitor, which runs the runtime's `create` on the bundle. On an error the monitor is gone; what the
   * runtime left is the caller's to delete.
   */
  async create(request: CreateRequest, signal: AbortSignal | undefined): Promise<Processes> {
    if (signal?.aborted === true) throw cancelled(request.id, signal)
    const { paths, monitorCgroup } = request
    this.#removeLink(request.id)
    const child = start(this.#path, {
      args: this.#arguments(request),
      // In the C locale it takes no argument that is not ASCII.
      env: { LC_ALL: 'C.UTF-8', ...this.#options.env, _OCI_SYNCPIPE: '3', _OCI_STARTPIPE: '4' },
      cwd: paths.bundle,
      fds: ['null', 'null', 'pipe-read', 'socket', 'socket'],
    })
    const stderr = new Capture(child.streams[2] as Readable, MAX_STDERR)
    const late = new AbortController()
    let released = false
    try {
      // It blocks until the start channel speaks, so that everything it forks begins in its cgroup.
      if (monitorCgroup !== undefined) await this.#confine(monitorCgroup, child.pid)
      effectSync('runtime', 'release-monitor', request.id, () => release(child))
      released = true
      const { createLimitMs = CREATE_LIMIT_MS } = this.#options
      const stopped = givenUp(request.id, createLimitMs, signal, late.signal)
      const pid = await Promise.race([outcome(child, stderr, request.logPath), stopped])
      // A monitor whose container is none of its children may be gone by now: what it reported tells why.
      const init = this.#initOf(pid, child.ref)
      const monitor = this.#monitorOf(request)
      this.#assertBegun(init, monitor)
      return { init, monitor }
    } catch (error) {
      await this.#abandon(child, released, request)
      throw error
    } finally {
      late.abort()
      for (const stream of child.streams) stream?.destroy()
    }
  }

  async #confine(cgroup: string, pid: number): Promise<void> {
    try {
      await this.#options.cgroups.add(cgroup, pid)
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') throw error // it has ended already, and its exit code will tell why
    }
  }

  /**
   * Before its release the process has forked nothing, and its end of the start channel must stay open: a closed one
   * means "go". After it, the pid file names what it forked, once it has ended.
   */
  async #abandon(child: Child, released: boolean, { id, paths }: CreateRequest): Promise<void> {
    if (!released) child.kill('SIGKILL')
    const forked = await within(MONITOR_END_MS, child.exited)
    if (forked === undefined) child.kill('SIGKILL')
    await this.end(paths.bundle, id)
  }

  /** Waits for the monitor of an ended container to end by itself, then kills it. Returns when it is gone. */
  async await(bundle: string, id: string): Promise<void> {
    const monitor = findMonitor(bundle, id)
    if (monitor !== undefined && !(await hasEnded(monitor, MONITOR_END_MS))) await this.end(bundle, id)
  }

  /** Kills the container's monitor, if there is one, with what it runs: a runtime at work, the container itself. */
  async end(bundle: string, id: string): Promise<void> {
    for (const monitor of this.#monitors(bundle, id)) await killTree(monitor)
  }

  /**
   * One that a daemon started just before it died may not have written its pid yet, and would go on. Only then are all
   * processes looked at: it has a bundle, and no such file in it. Where its program was then says nothing of where it is
   * now: the directory for its exit file is this daemon's alone.
   */
  #monitors(bundle: string, id: string): ProcessRef[] {
    if (!existsSync(bundle) || existsSync(monitorPidFile(bundle)))
      return [findMonitor(bundle, id) ?? []].flat()
    return processesWithArguments('--exit-dir', this.#options.exitsDir, id)
  }

  /** What it leaves outside the bundle. */
  removeLink(id: string): void {
    this.#removeLink(id)
    const { exitsDir } = this.#options
    effectSync('runtime', 'remove-exit-file', id, () => {
      // One that was killed while it wrote the exit file has left it under the name that it begins with: `ID.XXXXXX`.
      const names = namesIn(exitsDir).filter(name => name === id || name.startsWith(`${id}.`))
      for (const name of names) rmSync(join(exitsDir, name), { force: true, recursive: true })
    })
  }

  #removeLink(id: string): void {
    const link = join(this.#options.socketsDir, id)
    effectSync('runtime', 'remove-socket-link', link, () => {
      try {
        unlinkSync(link)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    })
  }

  #monitorOf({ paths, id }: CreateRequest): ProcessRef {
    const monitor = findMonitor(paths.bundle, id)
    if (monitor === undefined) throw internal('the monitor ended as soon as the container was created')
    return monitor
  }

  /** A pid file with nonsense in it must not have another process killed as the container's. */
  #initOf(pid: number, starter: ProcessRef): ProcessRef {
    const ref = processRef(pid)
    if (ref === undefined)
      throw internal(`${this.#cli.name} create: its process (pid ${pid}) is gone already`)
    this.#assertBegun(ref, starter)
    return ref
  }

  #assertBegun(init: ProcessRef, before: ProcessRef): void {
    if (beganAfter(init, before)) return
    const what = `the pid ${init.pid}, which is no process of the container`
    throw internal(`${this.#cli.name} create: it reports ${what}`)
  }

  #arguments(request: CreateRequest): string[] {
    const { id, name, paths, logPath, terminal, stdin, stdinOnce } = request
    const options = this.#options
    const args = ['-b', paths.bundle, '-c', id, '-u', id, '-n', name, '-r', this.#cli.path]
    for (const argument of this.#cli.globalArgs) args.push('--runtime-arg', argument)
    args.push('-p', join(paths.bundle, BUNDLE_FILES.init), '-P', monitorPidFile(paths.bundle))
    args.push('--persist-dir', paths.persist, '--exit-dir', options.exitsDir)
    args.push('--socket-dir-path', options.socketsDir, '--log-level', 'warn')
    args.push('-l', logDriver(logPath))
    if (options.systemdCgroup) args.push('-s')
    if (options.noSyncLog) args.push('--no-sync-log')
    if (terminal) args.push('-t')
    if (stdin && !terminal) args.push('-i')
    if (stdin && !stdinOnce) args.push('--leave-stdin-open')
    return args
  }
}

function monitorPidFile(bundle: string): string {
  return join(bundle, BUNDLE_FILES.monitor)
}

/** The monitor of this container while it lives; its pid may have been given to another process since. */
function findMonitor(bundle: string, id: string): ProcessRef | undefined {
  try {
    const pid = Number(readFileSync(monitorPidFile(bundle), 'utf8'))
    if (!Number.isInteger(pid) || pid <= 1) return undefined
    const ref = processRef(pid)
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return ref !== undefined && commandLine.includes(id) && isAlive(ref) ? ref : undefined
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined
    throw error
  }
}

/** An empty log of a container that never was; one with content is somebody's. */
export function removeEmptyLog(logPath: string): void {
  if (logPath === '' || !existsSync(logPath) || statSync(logPath).size > 0) return
  effectSync('runtime', 'remove-log', logPath, () => rmSync(logPath, { force: true }))
}

/** `driver:path`, cut at every colon: the monitor would silently write elsewhere. */
function logDriver(logPath: string): string {
  if (logPath === '') return 'none'
  if (!logPath.includes(':')) return `k8s-file:${logPath}`
  throw invalid('log_path', `${JSON.stringify(logPath)}: the monitor takes no path with a colon`)
}

function release(child: Child): void {
  const channel = child.streams[4] as Duplex
  channel.on('error', () => undefined) // EPIPE: it is gone, which its exit code tells
  channel.end('\0')
}

/** The pid of the container's init, once the monitor reports it. */
async function outcome(child: Child, stderr: Capture, logPath: string): Promise<number> {
  const line = readLine(child.streams[3] as Duplex)
  line.catch(() => undefined) // its failure matters only if the monitor started
  // The started process forks the monitor proper and ends; the descriptors live on in the monitor.
  const code = await child.exited
  if (code !== 0) {
    await within(DRAIN_MS, stderr.ended)
    throw internal(`conmon: ${readableError(stderr.bytes.toString())} (exit code ${code}, log ${logPath})`)
  }
  const text = await line
  if (text === undefined) {
    throw internal(`conmon ended without an answer: ${readableError(stderr.bytes.toString())}`)
  }
  return parseAnswer(text)
}

/** @returns undefined if the stream ended before the line did */
function readLine(stream: Duplex): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const chunks: Buffer[] = []
  let length = 0
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    length += chunk.length
    if (chunk.includes(10)) resolve(Buffer.concat(chunks).toString().split('\n', 1)[0])
    else if (length > MAX_LINE) reject(internal(`conmon: its answer is longer than ${MAX_LINE} bytes`))
  })
  stream.on('error', () => undefined)
  stream.on('close', () => resolve(undefined))
  return promise
}

/** `{"pid": N}`, or `{"pid": -1, "message": "…"}` with the runtime's words. */
export function parseAnswer(line: string): number {
  let answer: { pid?: unknown; message?: unknown } | null
  try {
    answer = JSON.parse(line) as typeof answer
  } catch (error) {
    throw internal(`conmon: expected one line of JSON, got ${readableError(line).slice(0, 200)}`, error)
  }
  const pid = answer?.pid
  if (typeof pid === 'number' && Number.isInteger(pid) && pid > 0) return pid
  const message = typeof answer?.message === 'string' ? answer.message : ''
  throw internal(readableError(message))
}

function cancelled(id: string, signal: AbortSignal | undefined): BerthError {
  return new BerthError('cancelled', `creating container ${id} was cancelled`, signal?.reason)
}

/** Rejects when the caller left or the time is up; never resolves. */
function givenUp(
  id: string,
  limitMs: number,
  signal: AbortSignal | undefined,
  done: AbortSignal,
): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(cancelled(id, signal))
  signal?.addEventListener('abort', abort, { once: true })
  const timer = setTimeout(() => {
    reject(new BerthError('deadline', `creating container ${id} took longer than ${limitMs / 1000} s`))
  }, limitMs)
  done.addEventListener('abort', () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  })
  return promise
}
