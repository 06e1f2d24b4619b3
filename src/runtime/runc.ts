import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, internal, isCode, messageOf, precondition } from '../base/errors.ts'
import type { OciResources } from '../model/oci.ts'
import type { ProcessRef } from '../model/pod.ts'
import type { Log } from '../observe/log.ts'
import { ensureDir, removeTree } from '../os/files.ts'
import { reapOrphan, signalProcess } from '../os/processes.ts'
import type { RunResult } from '../os/spawn.ts'
import { knownWeakness } from './advisories.ts'
import { Attachments } from './attach.ts'
import { BUNDLE_FILES } from './bundle-files.ts'
import type { Channels } from './channels.ts'
import { Conmon, type ConmonOptions, type Processes, removeEmptyLog } from './conmon.ts'
import { Execs } from './execs.ts'
import { readExitFiles } from './exits.ts'
import { OciCli, type OciCliOptions } from './oci-cli.ts'
import { ociJson } from './oci-json.ts'
import { hasEnded } from './process-tree.ts'
import { reopenLogFile } from './reopen-log.ts'
import type {
  AttachRequest,
  ContainerPaths,
  CreateRequest,
  ExecRequest,
  ExecResult,
  ExitRecord,
  LeftCommand,
  Runtime,
  RuntimeFeatures,
  RuntimeState,
  StreamRequest,
} from './runtime.ts'

/** From SIGKILL to gone: longer only for a process that hangs in the kernel, or is frozen. */
const DEATH_MS = 10_000
const FROZEN_MS = 1000
const SIGKILL = 9

export type RuntimeOptions = OciCliOptions &
  ConmonOptions & {
    /** Its name in the configuration. */
    readonly handler: string
    readonly log: Pick<Log, 'info' | 'warn'>
  }

/** What the two programs of a handler said of themselves. */
type Findings = Pick<Runtime, 'version' | 'features' | 'problem'>

const NO_FEATURES: RuntimeFeatures = { recursiveReadOnly: false, idmap: false, seccomp: false }

/**
 * A handler for runc, or any runtime with its command line, under conmon. Asks both programs who they are; if one of
 * them is missing, broken or too old, `problem` of the runtime says so.
 * @throws BerthError invalid for paths that cannot be
 */
export async function createRuntime(options: RuntimeOptions): Promise<Runtime> {
  const runtime = new RuncRuntime(options)
  await runtime.probe()
  return runtime
}

class RuncRuntime implements Runtime {
  readonly handler: string
  readonly #log: RuntimeOptions['log']
  readonly #exitsDir: string
  readonly #cgroups: RuntimeOptions['cgroups']
  readonly #cli: OciCli
  readonly #conmon: Conmon
  readonly #execs: Execs
  readonly #attachments: Attachments
  #found: Findings = { version: '', features: NO_FEATURES, problem: undefined }
  #probing: Promise<void> | undefined

  constructor(options: RuntimeOptions) {
    this.handler = options.handler
    this.#log = options.log
    this.#exitsDir = options.exitsDir
    this.#cgroups = options.cgroups
    this.#cli = new OciCli(options)
    this.#conmon = new Conmon(options, this.#cli)
    this.#execs = new Execs(this.#cli)
    this.#attachments = new Attachments(options.socketsDir)
  }

  get version(): string {
    return this.#found.version
  }

  get features(): RuntimeFeatures {
    return this.#found.features
  }

  get problem(): string | undefined {
    return this.#found.problem
  }

  get warning(): string | undefined {
    return this.problem ?? knownWeakness(this.version)
  }

  probe(): Promise<void> {
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = undefined
    })
    return this.#probing
  }

  async #probe(): Promise<void> {
    const { problem, warning } = this
    this.#found = await this.#ask()
    if (this.warning !== undefined && this.warning !== warning) this.#log.warn({}, this.warning)
    if (problem !== undefined && this.problem === undefined) {
      const { handler, version } = this
      this.#log.info({ handler, version }, 'a runtime handler is available again')
    }
  }

  async #ask(): Promise<Findings> {
    try {
      const [version] = await Promise.all([this.#cli.version(), this.#conmon.checkVersion()])
      return { version, features: await this.#cli.features(), problem: undefined }
    } catch (error) {
      // That no process can be started now says nothing of the programs.
      if (isCode(error, 'unavailable') && this.problem === undefined && this.version !== '')
        return this.#found
      const problem = `runtime handler ${this.handler} is not available: ${messageOf(error)}`
      return { version: '', features: NO_FEATURES, problem }
    }
  }

  async create(request: CreateRequest, signal?: AbortSignal): Promise<Processes> {
    const { paths, spec } = request
    ensureDir(paths.bundle, 0o700)
    ensureDir(paths.persist, 0o700)
    effectSync('runtime', 'write-bundle', paths.bundle, () => {
      writeFileSync(join(paths.bundle, BUNDLE_FILES.spec), ociJson(spec), { mode: 0o600 })
    })
    try {
      const processes = await this.#conmon.create(request, signal)
      effectSync('runtime', 'write-processes', paths.bundle, () => {
        writeFileSync(processesFile(paths.bundle), JSON.stringify(processes), { mode: 0o600 })
      })
      return processes
    } catch (error) {
      // What fails here, the caller's `remove` does again.
      await this.#clearFailed(request).catch(() => undefined)
      // Perhaps the programs are not what they were.
      await this.probe()
      throw this.problem === undefined ? error : new BerthError('precondition', this.problem, error)
    }
  }

  async #clearFailed({ id, logPath, spec }: CreateRequest): Promise<void> {
    await this.#cli.call(['delete', '--force', id]).catch(() => undefined) // it may be what is missing
    this.#conmon.removeLink(id)
    removeEmptyLog(logPath)
    // A runtime that was killed at work may not have noted the group it made. systemd's names are no paths.
    const cgroup = spec.linux.cgroupsPath ?? ''
    if (cgroup.startsWith('/')) await this.#cgroups.remove(cgroup)
  }

  async start(id: string, _paths: ContainerPaths): Promise<void> {
    await this.#cli.mustCall(['start', id])
    if (this.#cli.awaitsStart(id) && (await this.#cli.state(id))?.status === 'created') {
      throw internal(
        `${this.#cli.name} start: it reports success, but the container still waits for its start`,
      )
    }
  }

  state(id: string): Promise<RuntimeState | undefined> {
    return this.#cli.state(id)
  }

  async kill(id: string, signal: string, all: boolean): Promise<void> {
    const args = ['kill', ...(all ? ['--all'] : []), id, signal]
    const result = await this.#cli.call(args)
    if (result.code === 0) return
    const state = await this.#cli.state(id)
    if (state !== undefined && state.status !== 'stopped') throw this.#cli.failed('kill', result)
  }

  async remove(id: string, paths: ContainerPaths): Promise<void> {
    this.#execs.end(id)
    const { init, monitor } = readProcesses(paths.bundle) ?? {}
    if (init !== undefined) await this.#killInit(id, init)
    // Without knowing its init the monitor is killed; the runtime then kills what it still knows of.
    if (init === undefined) await this.#conmon.end(paths.bundle, id)
    await Promise.all([this.#deleteState(id), this.#conmon.await(paths.bundle, id)])
    if (monitor !== undefined) reapOrphan(monitor)
    this.#conmon.removeLink(id)
    await removeTree(paths.bundle)
    this.#execs.forget(id)
    this.#attachments.forget(id)
  }

  /** `delete --force` on a living container sleeps 100 ms between signal and look; a pidfd tells at once. */
  async #killInit(id: string, init: ProcessRef): Promise<void> {
    if (!signalProcess(init, SIGKILL) || (await hasEnded(init, FROZEN_MS))) return
    await this.#cli.call(['resume', id]).catch(() => undefined) // a paused one dies only when it thaws
    if (await hasEnded(init, DEATH_MS)) return
    throw new BerthError('deadline', `container ${id}: its process (pid ${init.pid}) survived SIGKILL`)
  }

  /**
   * What the runtime keeps of a container whose process is dead. One that can neither delete it nor say what it is
   * (its file was damaged, its program is missing) will never do so: its directory is removed.
   */
  async #deleteState(id: string): Promise<void> {
    if (!this.#cli.knows(id)) return
    const problem = await this.#tryDelete(id)
    if (problem === undefined) return
    if (await this.#knowsState(id)) throw problem
    this.#log.warn(
      { containerId: id, error: messageOf(problem) },
      'the runtime cannot delete an ended container: what it knows of it is removed',
    )
    await this.#cli.forget(id)
  }

  /** @returns why it is not deleted */
  async #tryDelete(id: string): Promise<unknown> {
    let result: RunResult | undefined
    try {
      for (const args of [
        ['delete', id],
        ['delete', '--force', id],
      ]) {
        result = await this.#cli.call(args)
        if (!this.#cli.knows(id)) return undefined
      }
    } catch (error) {
      return error
    }
    if (result?.code !== 0) return this.#cli.failed('delete', result!)
    return internal(`${this.#cli.name} delete: it reports success, but still knows container ${id}`)
  }

  /** @throws BerthError if it may know later: it hangs, or the node is short of something */
  async #knowsState(id: string): Promise<boolean> {
    try {
      return (await this.#cli.state(id)) !== undefined
    } catch (error) {
      if (isCode(error, 'internal') || isCode(error, 'precondition')) return false
      throw error
    }
  }

  async update(id: string, resources: OciResources): Promise<void> {
    await this.#cli.mustCall(['update', '--resources', '-', id], ociJson(resources))
  }

  async resume(id: string): Promise<void> {
    await this.#cli.mustCall(['resume', id])
  }

  async exec(request: ExecRequest): Promise<ExecResult> {
    return await this.#execs.run(request)
  }

  async execStream(request: StreamRequest, channels: Channels, signal: AbortSignal): Promise<number> {
    return await this.#execs.stream(request, channels, signal)
  }

  async attach(request: AttachRequest, channels: Channels, signal: AbortSignal): Promise<void> {
    await this.#attachments.attach(request, channels, signal)
  }

  endExecs(containerId: string): void {
    this.#execs.end(containerId)
  }

  execDirectories(): string[] {
    return this.#execs.directories()
  }

  async reopenLog(paths: ContainerPaths, logPath: string): Promise<void> {
    if (logPath === '') throw precondition('the container has no log')
    const monitor = readProcesses(paths.bundle)?.monitor
    await reopenLogFile(paths.bundle, monitor, logPath)
  }

  readExit(id: string, paths: ContainerPaths): ExitRecord | undefined {
    return readExitFiles(this.#exitsDir, id, paths)
  }

  leftStarts(): Map<string, LeftCommand> {
    return this.#cli.leftCommands('start')
  }

  async list(): Promise<string[]> {
    return this.#cli.ids()
  }
}

/** Who the container's processes are, for a `remove` that has nothing but the paths. */
function processesFile(bundle: string): string {
  return join(bundle, BUNDLE_FILES.processes)
}

function readProcesses(bundle: string): Processes | undefined {
  try {
    return JSON.parse(readFileSync(processesFile(bundle), 'utf8')) as Processes
  } catch (error) {
    // Cut off by a crash: as if it had not been written.
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}
