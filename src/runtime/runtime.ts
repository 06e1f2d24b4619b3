import type { OciProcess, OciResources, OciSpec } from '../model/oci.ts'
import type { ProcessRef } from '../model/pod.ts'
import type { Channels } from './channels.ts'

/** Where one container's files are. Every path derives from the id, so recovery needs only the row. */
export type ContainerPaths = {
  /** Bundle on tmpfs, 0700: config.json, pid files, attach socket, control FIFOs. */
  readonly bundle: string
  /** Persistent, 0700: `exit` and `oom`, written by the monitor. */
  readonly persist: string
}

export type CreateRequest = {
  readonly id: string
  readonly name: string
  readonly paths: ContainerPaths
  readonly spec: OciSpec
  /** Absolute; '' discards the output. Its directory exists. */
  readonly logPath: string
  readonly terminal: boolean
  readonly stdin: boolean
  readonly stdinOnce: boolean
  /** Cgroup for the monitor; it exists. undefined leaves it where the daemon is. */
  readonly monitorCgroup: string | undefined
}

export type RuntimeStatus = 'creating' | 'created' | 'running' | 'paused' | 'stopped'

export type RuntimeState = { readonly status: RuntimeStatus; readonly pid: number }

/** A further process of a container. */
export type ExecCommand = {
  readonly containerId: string
  /** The container's, in which the process will be found. */
  readonly cgroup: string
  readonly process: OciProcess
  /**
   * A private directory, made here and removed when the process has ended; its path is at most 99 bytes long. From
   * one that a crash has left, `killLeftExec` finds the process.
   */
  readonly directory: string
}

export type ExecRequest = ExecCommand & {
  /** ms; 0 is no limit. */
  readonly timeoutMs: number
  /** Kept bytes per stream; the rest is read and dropped. */
  readonly maxOutput: number
  readonly signal?: AbortSignal
}

export type StreamRequest = ExecCommand & {
  /** From the client's leaving, at which the process gets SIGHUP, to SIGKILL for it and its children; 0 is never. */
  readonly killAfterMs: number
}

export type AttachRequest = {
  readonly containerId: string
  readonly paths: ContainerPaths
  /** As the container was created. */
  readonly terminal: boolean
  readonly stdin: boolean
  readonly stdinOnce: boolean
}

export type ExecResult = { readonly code: number; readonly stdout: Buffer; readonly stderr: Buffer }

export type ExitRecord = {
  /** Exit code, 128 + signal for signals. */
  readonly code: number
  readonly finishedAt: bigint
  /** The monitor saw the kernel kill a process of the cgroup for memory. */
  readonly oom: boolean
}

export type RuntimeFeatures = {
  /** `rro` is among the mount options. */
  readonly recursiveReadOnly: boolean
  /** The runtime performs id-mapped mounts (`linux.mountExtensions.idmap`). */
  readonly idmap: boolean
  readonly seccomp: boolean
}

/**
 * One configured handler: an OCI runtime and the monitor that runs it. Containers outlive the daemon: nothing here
 * keeps state in memory that could not be read again from the paths and the kernel.
 */
/** A command of the runtime that goes on although the daemon that gave it has ended. */
export type LeftCommand = {
  /** Waits as long as one's own command may take, then kills it. */
  ended(): Promise<void>
}

export interface Runtime {
  readonly handler: string
  /**
   * A sentence that says which handler it is and why nothing new can be made with it: a program that is missing,
   * broken or too old. What there is goes on.
   */
  readonly problem: string | undefined
  /** None while there is a problem. */
  readonly features: RuntimeFeatures
  /** `runc 1.1.5`; '' while there is a problem. */
  readonly version: string
  /** What an operator should know: the problem, or a weakness of that version. */
  readonly warning: string | undefined
  /** Asks the programs anew who they are, and logs what has changed. Calls at the same time share one look. */
  probe(): Promise<void>
  /**
   * Writes the bundle, starts the monitor, which runs `create`. On an error nothing of it is left running, but
   * the caller still calls `remove`.
   */
  create(request: CreateRequest, signal?: AbortSignal): Promise<{ init: ProcessRef; monitor: ProcessRef }>
  start(id: string, paths: ContainerPaths): Promise<void>
  /** undefined: the runtime does not know the id. */
  state(id: string): Promise<RuntimeState | undefined>
  /** The runtime's own kill, for init systems that filter; most signals go straight to the process. */
  kill(id: string, signal: string, all: boolean): Promise<void>
  /**
   * `delete --force` and the files of the monitor. Succeeds when there is nothing. Kills what lives. Without a
   * runtime that works, what this does not reach is in the container's cgroup, which the caller removes.
   */
  remove(id: string, paths: ContainerPaths): Promise<void>
  update(id: string, resources: OciResources): Promise<void>
  resume(id: string): Promise<void>
  /**
   * Runs a process in the container and waits for it.
   * @throws BerthError deadline when `timeoutMs` passed; its whole process tree is dead by then
   */
  exec(request: ExecRequest): Promise<ExecResult>
  /**
   * Runs a process in the container for a connected client. `signal` is the client's leaving.
   * @returns its exit code, after stdout and stderr were ended
   */
  execStream(request: StreamRequest, channels: Channels, signal: AbortSignal): Promise<number>
  /**
   * Connects a client with the first process of the container. Returns when that has written its last, or the client
   * has left or detached; the process does not notice.
   * @throws BerthError precondition if the container has no monitor any more; exhausted if the client reads too slowly
   */
  attach(request: AttachRequest, channels: Channels, signal: AbortSignal): Promise<void>
  /** Kills every exec of that container that still runs, with its children; later execs are refused. */
  endExecs(containerId: string): void
  /** Directories of the execs that this process has started and not seen to their end. */
  execDirectories(): string[]
  /** The new log file exists and the old one is no longer written when this returns. */
  reopenLog(paths: ContainerPaths, logPath: string): Promise<void>
  /**
   * What the monitor left at the container's exit; undefined while there is nothing.
   * @throws BerthError internal, with what is there, if that is no exit code
   */
  readExit(id: string, paths: ContainerPaths): ExitRecord | undefined
  /** Starts that a daemon before this one has left at work, by container. */
  leftStarts(): Map<string, LeftCommand>
  /** Ids that the runtime's own state directory holds, for the search for orphans. */
  list(): Promise<string[]>
}
