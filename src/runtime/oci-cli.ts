import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, internal, precondition } from '../base/errors.ts'
import { removeTree } from '../os/files.ts'
import { argumentsOf, processesWithArguments } from '../os/processes.ts'
import { type RunResult, run } from '../os/spawn.ts'
import { hasEnded, killTree } from './process-tree.ts'
import type { LeftCommand, RuntimeFeatures, RuntimeState, RuntimeStatus } from './runtime.ts'
import { readableError } from './text.ts'

/** A command may run hooks of the node; beyond this it hangs (kubelet itself waits two minutes). */
const COMMAND_LIMIT_MS = 120_000

/** For the state, which is a file that is read: a runtime that hangs must not keep the daemon from starting. */
const STATE_LIMIT_MS = 10_000

/** For a program that says who it is: a broken one must not keep the daemon from starting. */
const PROBE_MS = 10_000

export type OciCliOptions = {
  /** Absolute. */
  readonly runtimePath: string
  /** Where it is by now, whenever it is asked who it is; without this, it stays where it was. */
  readonly findRuntime?: () => string
  /** Its `--root`, on tmpfs and of this daemon alone. */
  readonly runtimeRoot: string
  /** Its whole environment. */
  readonly env: Readonly<Record<string, string>>
  readonly systemdCgroup: boolean
  /** ms for a command; 2 minutes unless given. */
  readonly commandLimitMs?: number
}

/** The command line that runc-compatible OCI runtimes share. Failure is an exit code; the words differ. */
export class OciCli {
  readonly #options: OciCliOptions
  #path: string
  /** File name of the program, for messages. */
  readonly name: string

  constructor(options: OciCliOptions) {
    this.#options = options
    this.#path = options.runtimePath
    this.name = options.runtimePath.slice(options.runtimePath.lastIndexOf('/') + 1)
  }

  /** What stands before every command. */
  get globalArgs(): string[] {
    const { runtimeRoot, systemdCgroup } = this.#options
    return ['--root', runtimeRoot, ...(systemdCgroup ? ['--systemd-cgroup'] : [])]
  }

  get path(): string {
    return this.#path
  }

  /** ms */
  get commandLimitMs(): number {
    return this.#options.commandLimitMs ?? COMMAND_LIMIT_MS
  }

  get env(): Readonly<Record<string, string>> {
    return this.#options.env
  }

  call(args: readonly string[], stdin?: string, limitMs = this.commandLimitMs): Promise<RunResult> {
    return run(this.path, {
      args: [...this.globalArgs, ...args],
      env: this.env,
      timeoutMs: Math.min(limitMs, this.commandLimitMs),
      label: `${this.name} ${args[0]}`,
      ...(stdin === undefined ? {} : { stdin }),
    })
  }

  /** @throws BerthError internal with the runtime's own words */
  async mustCall(args: readonly string[], stdin?: string): Promise<void> {
    const result = await this.call(args, stdin)
    if (result.code !== 0) throw this.failed(args[0] ?? '', result)
  }

  failed(command: string, result: RunResult): Error {
    return internal(
      `${this.name} ${command}: ${readableError(result.stderr.toString())} (exit code ${result.code})`,
    )
  }

  /**
   * Commands of this kind that were given by a daemon before this one, by the container they are for. The program may
   * have been elsewhere then; its `--root` is this daemon's alone, and of a monitor it is an argument's argument.
   */
  leftCommands(command: string): Map<string, LeftCommand> {
    const left = new Map<string, LeftCommand>()
    for (const ref of processesWithArguments('--root', this.#options.runtimeRoot, command)) {
      const args = argumentsOf(ref.pid)
      if (args.includes('--runtime-arg')) continue
      const ended = async () => {
        if (!(await hasEnded(ref, this.commandLimitMs))) await killTree(ref)
      }
      left.set(args.at(-1) ?? '', { ended })
    }
    return left
  }

  /** Runtimes keep one directory per container; asking them costs a process. */
  knows(id: string): boolean {
    return existsSync(join(this.#options.runtimeRoot, id))
  }

  ids(): string[] {
    try {
      const entries = readdirSync(this.#options.runtimeRoot, { withFileTypes: true })
      return entries.filter(entry => entry.isDirectory()).map(entry => entry.name)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw error
    }
  }

  async state(id: string): Promise<RuntimeState | undefined> {
    if (!this.knows(id)) return undefined
    const result = await this.call(['state', id], undefined, STATE_LIMIT_MS)
    if (result.code === 0) return this.#parseState(result.stdout.toString())
    if (!this.knows(id)) return undefined
    throw this.failed('state', result)
  }

  #parseState(text: string): RuntimeState {
    const { status, pid } = this.#json('state', text)
    if (isStatus(status) && typeof pid === 'number') return { status, pid }
    throw internal(
      `${this.name} state: expected a status and a pid, got ${readableError(text).slice(0, 200)}`,
    )
  }

  #json(command: string, text: string): Record<string, unknown> {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch {
      value = undefined
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>
    }
    const found = readableError(text).slice(0, 200)
    throw internal(`${this.name} ${command}: expected a JSON object, got ${found}`)
  }

  /** Removes what the runtime knows of a container, for one that cannot do it itself any more. */
  async forget(id: string): Promise<void> {
    await removeTree(join(this.#options.runtimeRoot, id))
  }

  /**
   * `runc 1.1.5`
   * @throws BerthError precondition if that program is missing, or is none
   */
  async version(): Promise<string> {
    this.#path = this.#options.findRuntime?.() ?? this.#path
    const result = await this.call(['--version'], undefined, PROBE_MS)
    const match = /^(\S+) version (\S+)/.exec(result.stdout.toString())
    if (result.code === 0 && match !== null) return `${match[1]} ${match[2]}`
    const said = readableError((result.code === 0 ? result.stdout : result.stderr).toString()).slice(0, 200)
    throw precondition(
      `${this.path} --version: expected an OCI runtime's, got: ${said} (exit code ${result.code})`,
    )
  }

  /** What `features` says; a runtime without that command has none but seccomp, which `create` would refuse. */
  async features(): Promise<RuntimeFeatures> {
    const result = await this.call(['features'], undefined, PROBE_MS)
    if (result.code !== 0) return { recursiveReadOnly: false, idmap: false, seccomp: true }
    const { mountOptions, linux } = this.#json('features', result.stdout.toString())
    const parts = memberOf(linux, 'mountExtensions')
    return {
      recursiveReadOnly: Array.isArray(mountOptions) && mountOptions.includes('rro'),
      idmap: memberOf(memberOf(parts, 'idmap'), 'enabled') === true,
      seccomp: memberOf(memberOf(linux, 'seccomp'), 'enabled') === true,
    }
  }

  /** A created container of runc's or crun's waits at this file for its start, and only then. */
  awaitsStart(id: string): boolean {
    return existsSync(join(this.#options.runtimeRoot, id, 'exec.fifo'))
  }
}

/** Of whatever a runtime has printed. */
function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined
}

function isStatus(value: unknown): value is RuntimeStatus {
  return typeof value === 'string' && ['creating', 'created', 'running', 'paused', 'stopped'].includes(value)
}
