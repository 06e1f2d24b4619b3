import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import type net from 'node:net'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal } from '../base/errors.ts'
import type { OciProcess } from '../model/oci.ts'
import type { ProcessRef } from '../model/pod.ts'
import { exitOf } from '../os/children.ts'
import { ensureDir } from '../os/files.ts'
import { beganAfter, processRef, signalChild } from '../os/processes.ts'
import { type ChildFd, start } from '../os/spawn.ts'
import { ConsoleSocket } from '../os/terminals.ts'
import { Capture } from './capture.ts'
import type { OciCli } from './oci-cli.ts'
import { ociJson } from './oci-json.ts'
import { killTree } from './process-tree.ts'
import type { ExecCommand } from './runtime.ts'
import { readableError } from './text.ts'
import { within } from './within.ts'

type Ends = [net.Socket | undefined, net.Socket | undefined, net.Socket]

/** How long output is read after a process has ended: what it left running may hold its pipes for good. */
export const DRAIN_MS = 10_000

/** What a runtime that has failed wrote is in the pipe. */
const MESSAGE_MS = 1000
const MAX_MESSAGE = 64 * 1024

/** Names in the directory of an exec, from which a daemon that comes later tells what runs (`left-execs.ts`). */
export const EXEC_FILES = {
  pid: 'pid',
  startTime: 'start-time',
  process: 'process.json',
  cgroup: 'cgroup',
  console: 'console',
} as const

/** A process that runs, and our ends of its streams. */
export type Started = {
  /** Exit code, or 128 + signal. */
  readonly exited: Promise<number>
  readonly stdin: net.Socket | undefined
  readonly stdout: net.Socket | undefined
  readonly stderr: net.Socket
  /** Master end, in place of the other three. */
  readonly terminal: net.Socket | undefined
}

/**
 * A process beside the first one of a container. The OCI runtime starts it, with our pipes as its own, and leaves it
 * to us as a child (`adoptOrphans`): between it and us there is nothing that would have to run as long as it does.
 */
export class Exec {
  readonly #cli: OciCli
  readonly #command: ExecCommand
  readonly #stopped = Promise.withResolvers<BerthError>()
  #runtime: ProcessRef | undefined
  #process: ProcessRef | undefined

  constructor(cli: OciCli, command: ExecCommand) {
    this.#cli = cli
    this.#command = command
  }

  get directory(): string {
    return this.#command.directory
  }

  /** Why it is to end; whoever runs it hears of that through `stopped`. */
  stop(error: BerthError): void {
    this.#stopped.resolve(error)
  }

  get stopped(): Promise<BerthError> {
    return this.#stopped.promise
  }

  /**
   * @param stdin,stdout whether it gets those; stderr it always has, unless all are a terminal
   * @throws BerthError internal, in the runtime's words, if it does not start; the reason of `stop`, after nothing of it
   *   is left
   */
  async start(stdin: boolean, stdout: boolean): Promise<Started> {
    const { process, directory, containerId, cgroup } = this.#command
    ensureDir(directory, 0o700)
    this.#write(EXEC_FILES.cgroup, cgroup)
    this.#write(EXEC_FILES.process, ociJson(process))
    using console = process.terminal === true ? new ConsoleSocket(this.#file('console')) : undefined
    const files = ['--process', this.#file('process'), '--pid-file', this.#file('pid')]
    const args = [...files, ...(console === undefined ? [] : ['--console-socket', console.path]), containerId]
    const runtime = start(this.#cli.path, {
      args: [...this.#cli.globalArgs, 'exec', '--detach', ...args],
      env: this.#cli.env,
      fds: stdio(process, stdin, stdout),
    })
    this.#runtime = runtime.ref
    const ends = runtime.streams as Ends
    const { commandLimitMs, name } = this.#cli
    const late = setTimeout(() => {
      const long = `it has not started the command within ${commandLimitMs / 1000} s`
      this.stop(new BerthError('deadline', `${name} exec: ${long}`))
    }, commandLimitMs)
    try {
      const code = await Promise.race([runtime.exited, this.stopped])
      if (code instanceof BerthError) throw code
      if (code !== 0) throw await this.#failure(ends[2])
      return this.#started(ends, console)
    } catch (error) {
      try {
        await this.kill()
      } finally {
        for (const end of ends) end?.destroy()
      }
      throw error
    } finally {
      clearTimeout(late)
    }
  }

  #started([stdin, stdout, stderr]: Ends, console?: ConsoleSocket): Started {
    const { name } = this.#cli
    const pid = readPid(this.#command.directory)
    if (pid === undefined) throw internal(`${name} exec: it has left no pid`)
    this.#process = this.#begun(pid)
    if (this.#process === undefined)
      throw internal(`${name} exec: it reports the pid ${pid}, which is no process that it has started`)
    const exited = exitOf(pid)
    this.#write(EXEC_FILES.startTime, this.#process.startTime)
    const terminal = console?.take()
    if (console !== undefined && terminal === undefined)
      throw internal(`${name} exec: it has sent no terminal`)
    return { exited, stdin, stdout, stderr, terminal }
  }

  /** A pid file with nonsense in it must not have another process waited for, or killed. */
  #begun(pid: number): ProcessRef | undefined {
    const ref = processRef(pid)
    const runtime = this.#runtime
    return ref !== undefined && runtime !== undefined && beganAfter(ref, runtime) ? ref : undefined
  }

  async #failure(stderr: Readable): Promise<BerthError> {
    const message = new Capture(stderr, MAX_MESSAGE)
    await within(MESSAGE_MS, message.ended)
    return internal(`${this.#cli.name} exec: ${readableError(message.bytes.toString())}`)
  }

  /** SIGHUP to its process group. A terminal does that by itself when its master end is closed. */
  hangUp(): void {
    const SIGHUP = 1
    if (this.#process !== undefined) signalChild(this.#process.pid, SIGHUP)
  }

  /** Kills it with all that descends from it, at whatever step it is. Returns when nothing of it is left. */
  async kill(): Promise<void> {
    if (this.#runtime !== undefined) await killTree(this.#runtime)
    const pid = readPid(this.#command.directory)
    const process = this.#process ?? (pid === undefined ? undefined : this.#begun(pid))
    if (process !== undefined) await killTree(process)
  }

  /** Its files; once they are gone a daemon that comes later leaves it alone. */
  forget(): void {
    const { directory } = this.#command
    effectSync('runtime', 'forget-process', directory, () =>
      rmSync(directory, { recursive: true, force: true }),
    )
  }

  #file(name: keyof typeof EXEC_FILES): string {
    return join(this.#command.directory, EXEC_FILES[name])
  }

  #write(name: string, text: string): void {
    const file = join(this.#command.directory, name)
    effectSync('runtime', 'write-process', file, () => writeFileSync(file, text, { mode: 0o600 }))
  }
}

/** The runtime's own; it hands them down, except where the process gets a terminal. */
function stdio(process: OciProcess, stdin: boolean, stdout: boolean): ChildFd[] {
  if (process.terminal === true) return ['null', 'null', 'pipe-read']
  return [stdin ? 'pipe-write' : 'null', stdout ? 'pipe-read' : 'null', 'pipe-read']
}

/** The runtime writes it once the process runs, before it ends itself. */
export function readPid(directory: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(directory, EXEC_FILES.pid), 'utf8'))
    return Number.isInteger(pid) && pid > 1 ? pid : undefined
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
