import { closeSync } from 'node:fs'
import net from 'node:net'
import { isAbsolute } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal, messageOf } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { exitOf } from './children.ts'
import { posixSpawn } from './posix-spawn.ts'
import { processRef } from './processes.ts'
import { signalNumber } from './signals.ts'
import { socketPair } from './socket-calls.ts'
import * as sys from './syscalls.ts'

/**
 * What a descriptor of the child is. `pipe-read`: we read what it writes. `pipe-write`: it reads what we write.
 * `socket`: both ways. A number: that descriptor of ours, inherited.
 */
export type ChildFd = 'null' | 'pipe-read' | 'pipe-write' | 'socket' | number

export type StartOptions = {
  /** Without argv[0]. */
  readonly args: readonly string[]
  /** The whole environment of the child. */
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Element i becomes descriptor i of the child; it gets no others. */
  readonly fds: readonly ChildFd[]
  /** A session of its own; else a process group of its own. */
  readonly newSession?: boolean
}

export type Child = {
  readonly pid: number
  /** Read before its end could be collected: also of one that has ended already. */
  readonly ref: ProcessRef
  /** Our end per element of `fds`; undefined for `null` and inherited ones. The owner destroys them. */
  readonly streams: ReadonlyArray<net.Socket | undefined>
  /** Exit code, or 128 + n for signal n. Its output may not have been read yet. */
  readonly exited: Promise<number>
  /** To the process group. Nothing happens when there is none any more. */
  kill(signal: NodeJS.Signals | number): void
}

/**
 * Starts a program by posix_spawn(3), which costs the same at any memory size of ours.
 * @throws BerthError precondition if the file or the working directory is missing or must not be executed
 */
export function start(file: string, options: StartOptions): Child {
  if (!isAbsolute(file)) throw internal(`${file}: a program is named by its absolute path`)
  return effectSync('os', 'spawn', file, () => startChild(file, options))
}

function startChild(file: string, options: StartOptions): Child {
  const { args, env, cwd, newSession = false } = options
  const plumbing = new Plumbing(options.fds)
  try {
    plumbing.open()
    const pid = posixSpawn({ file, args, env, cwd, fds: plumbing.theirs, newSession })
    plumbing.closeTheirs() // first of all: reading needs a descriptor
    const ref = refOf(pid)
    return {
      pid,
      ref,
      streams: plumbing.streams(),
      exited: exitOf(pid),
      kill: signal => killGroup(pid, signal),
    }
  } catch (error) {
    plumbing.closeOurs()
    throw startError(file, cwd, error)
  } finally {
    plumbing.closeTheirs()
  }
}

/** Of a child whose end nobody has collected. @throws what reading it throws, after the child was killed */
function refOf(pid: number): ProcessRef {
  try {
    const ref = processRef(pid)
    if (ref !== undefined) return ref
    throw internal(`/proc/${pid}/stat cannot be read`)
  } catch (error) {
    killGroup(pid, 'SIGKILL')
    void exitOf(pid)
    throw error
  }
}

function killGroup(pid: number, signal: NodeJS.Signals | number): void {
  effectSync('os', 'kill-group', `${pid}`, () => {
    try {
      process.kill(-pid, signalNumber(signal))
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') throw error
    }
  })
}

function startError(file: string, cwd: string | undefined, error: unknown): BerthError {
  const code = errnoOf(error)
  if (code === 'ENOENT') {
    const where = cwd === undefined ? '' : `, or the working directory ${cwd}`
    return new BerthError('precondition', `cannot start ${file}: no such program${where}`, error)
  }
  if (code === 'EACCES' || code === 'ENOEXEC') {
    return new BerthError('precondition', `cannot start ${file}: not an executable program`, error)
  }
  if (code !== undefined && SHORTAGES.has(code)) {
    return new BerthError(
      'unavailable',
      `cannot start ${file}: the node is short of it: ${messageOf(error)}`,
      error,
    )
  }
  return internal(`cannot start ${file}: ${messageOf(error)}`, error)
}

/** Of processes, memory or descriptors: a later try may succeed. */
const SHORTAGES: ReadonlySet<string> = new Set(['EAGAIN', 'ENOMEM', 'EMFILE', 'ENFILE'])

type End = { readonly kind: ChildFd; readonly ours: number | undefined }

/** The descriptors of one child: ours, and its own at numbers that no dup2 overwrites. */
class Plumbing {
  readonly theirs: Array<number | undefined> = []
  readonly #kinds: readonly ChildFd[]
  readonly #ends: End[] = []

  constructor(kinds: readonly ChildFd[]) {
    this.#kinds = kinds
  }

  open(): void {
    for (const kind of this.#kinds) {
      if (kind === 'null') {
        this.theirs.push(undefined)
        this.#ends.push({ kind, ours: undefined })
      } else if (typeof kind === 'number') {
        this.theirs.push(sys.duplicateAbove(kind, this.#kinds.length))
        this.#ends.push({ kind, ours: undefined })
      } else {
        const [ours, theirs] = openEnds(kind)
        this.#ends.push({ kind, ours })
        this.theirs.push(this.#lift(theirs))
      }
    }
  }

  #lift(fd: number): number {
    if (fd >= this.#kinds.length) return fd
    try {
      return sys.duplicateAbove(fd, this.#kinds.length)
    } finally {
      closeSync(fd)
    }
  }

  closeTheirs(): void {
    for (const fd of this.theirs.splice(0)) if (fd !== undefined) closeSync(fd)
  }

  closeOurs(): void {
    for (const { ours } of this.#ends) if (ours !== undefined) closeSync(ours)
  }

  streams(): Array<net.Socket | undefined> {
    return this.#ends.map(({ kind, ours }) => {
      if (ours === undefined) return undefined
      const stream = new net.Socket({
        fd: ours,
        readable: kind !== 'pipe-write',
        writable: kind !== 'pipe-read',
      })
      // A child that closes its end early (EPIPE) must not end us; whoever waits sees 'close'.
      return stream.on('error', () => undefined)
    })
  }
}

/** @returns our end, the child's end */
function openEnds(kind: 'pipe-read' | 'pipe-write' | 'socket'): [number, number] {
  if (kind === 'socket') return socketPair()
  const [read, write] = sys.pipe()
  return kind === 'pipe-read' ? [read, write] : [write, read]
}

export type RunOptions = {
  /** Without argv[0]. */
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly stdin?: string | Buffer
  readonly signal?: AbortSignal
  /** ms; 0 is no limit. */
  readonly timeoutMs: number
  /** Bytes kept per stream (default 1 MiB); the rest is read and dropped. */
  readonly maxOutput?: number
  /** How the program is called in messages; default its path. */
  readonly label?: string
}

/** `code` is 128 + n for signal n. */
export type RunResult = { readonly code: number; readonly stdout: Buffer; readonly stderr: Buffer }

const DEFAULT_MAX_OUTPUT = 1024 * 1024

/** From SIGKILL to gone: longer only for a process that hangs in the kernel, for which nobody waits. */
const DEATH_MS = 5000

// A grandchild may hold the pipes for good; what the program itself wrote is there at once.
const DRAIN_MS = 2000

/**
 * Runs a program to its end.
 * @throws BerthError precondition if it cannot be started; deadline or cancelled after its whole group was killed
 */
export async function run(file: string, options: RunOptions): Promise<RunResult> {
  const { args, env, cwd, stdin, signal, timeoutMs, label = file } = options
  if (signal?.aborted === true) throw cancelled(label, signal)
  const child = start(file, {
    args,
    env,
    ...(cwd === undefined ? {} : { cwd }),
    fds: [stdin === undefined ? 'null' : 'pipe-write', 'pipe-read', 'pipe-read'],
  })
  const [input, output, errors] = child.streams as [Writable | undefined, Readable, Readable]
  const limit = options.maxOutput ?? DEFAULT_MAX_OUTPUT
  const [stdout, stderr] = [new Capture(output, limit), new Capture(errors, limit)]
  input?.end(stdin)
  try {
    const code = await untilExit(child, label, timeoutMs, signal)
    await within(DRAIN_MS, Promise.all([stdout.ended, stderr.ended]))
    return { code, stdout: stdout.take(), stderr: stderr.take() }
  } finally {
    for (const stream of [input, output, errors]) stream?.destroy()
  }
}

/** The exit code, or the error for which the child was killed; it has ended then, unless the error says otherwise. */
async function untilExit(
  child: Child,
  label: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  let failure: BerthError | undefined
  let death: NodeJS.Timeout | undefined
  const { promise: undying, reject } = Promise.withResolvers<never>()
  const stop = (error: BerthError) => {
    failure ??= error
    child.kill('SIGKILL')
    death ??= setTimeout(() => reject(survived(error, child.pid)), DEATH_MS)
  }
  const onAbort = () => stop(cancelled(label, signal))
  const timer = timeoutMs === 0 ? undefined : setTimeout(() => stop(late(label, timeoutMs)), timeoutMs)
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const code = await Promise.race([child.exited, undying])
    if (failure !== undefined) throw failure
    return code
  } finally {
    clearTimeout(timer)
    clearTimeout(death)
    signal?.removeEventListener('abort', onAbort)
  }
}

function survived(why: BerthError, pid: number): BerthError {
  const long = `it has not ended ${DEATH_MS / 1000} s after SIGKILL (pid ${pid}): it hangs in the kernel`
  return new BerthError(why.code, `${why.message}; ${long}`, why)
}

/** Waits for `work`, but no longer than `ms`. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([work, late])
  clearTimeout(timer)
}

/** Reads a stream to its end and keeps the first bytes. */
class Capture {
  readonly ended: Promise<void>
  readonly #chunks: Buffer[] = []
  #room: number

  constructor(stream: Readable, limit: number) {
    this.#room = limit
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    stream.on('data', (chunk: Buffer) => this.#keep(chunk))
    stream.on('close', () => resolve())
  }

  #keep(chunk: Buffer): void {
    if (this.#room <= 0) return
    this.#chunks.push(chunk.subarray(0, this.#room))
    this.#room -= chunk.length
  }

  take(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

function cancelled(label: string, signal: AbortSignal | undefined): BerthError {
  return new BerthError('cancelled', `${label}: cancelled`, signal?.reason)
}

function late(label: string, ms: number): BerthError {
  return new BerthError('deadline', `${label}: killed, since it took longer than ${ms} ms`)
}
