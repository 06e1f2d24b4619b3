import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { isAwaited, reapUnawaited } from './children.ts'
import { onPidExit } from './pidfd.ts'
import * as sys from './syscalls.ts'

/** What Berth reads of /proc/PID/stat (proc_pid_stat(5)). */
export type ProcessStat = {
  readonly pid: number
  /** `Z` and `X` are dead, if no thread is left: that of a leader says nothing of the others. */
  readonly state: string
  readonly threads: number
  readonly parent: number
  readonly session: number
  /** Ticks after boot, field 22. */
  readonly startTime: string
}

/** The command name, in parentheses, may itself hold spaces and parentheses: the last one ends it. */
export function parseStat(text: string): ProcessStat | undefined {
  const end = text.lastIndexOf(')')
  const fields = text.slice(end + 2).split(' ')
  const [state, parent, , session] = fields
  const threads = fields[17]
  const startTime = fields[19]
  if (end < 0 || state === undefined || startTime === undefined) return undefined
  return {
    pid: Number.parseInt(text, 10),
    state,
    parent: Number(parent),
    session: Number(session),
    threads: Number(threads),
    startTime,
  }
}

function readStat(pid: number): ProcessStat | undefined {
  return ifAlive(() => parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8')))
}

/** undefined if there is no such process. A zombie has a reference, but `isAlive` says no. */
export function processRef(pid: number): ProcessRef | undefined {
  const stat = readStat(pid)
  return stat === undefined ? undefined : { pid, startTime: stat.startTime }
}

/** The same process still runs: pid 1 may reap a dead one only seconds later. */
export function isAlive(ref: ProcessRef): boolean {
  const stat = readStat(ref.pid)
  return stat?.startTime === ref.startTime && isRunning(stat)
}

/** A program may go on when the thread that began it has ended (pthread_exit(3)). */
function isRunning({ state, threads }: ProcessStat): boolean {
  return (state !== 'Z' && state !== 'X') || threads > 1
}

// ~1 ms of readlink calls: what the event loop may be held up between two requests.
const LINKS_PER_TURN = 500

/** Open descriptors of these processes together, and how many of them are sockets. Those that end are left out. */
export async function openDescriptors(pids: readonly number[]): Promise<{ files: number; sockets: number }> {
  let files = 0
  let sockets = 0
  for (const pid of pids) {
    for (const fd of ifAlive(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      if (++files % LINKS_PER_TURN === 0) await nextTurn()
      if (ifAlive(() => readlinkSync(`/proc/${pid}/fd/${fd}`))?.startsWith('socket:')) sockets++
    }
  }
  return { files, sockets }
}

/** Soft limit of open files; 2⁶⁴−1 for none, undefined if there is no such process. */
export function softLimitOfFiles(pid: number): bigint | undefined {
  const text = ifAlive(() => readFileSync(`/proc/${pid}/limits`, 'utf8')) ?? ''
  const soft = /^Max open files +(\S+)/m.exec(text)?.[1]
  if (soft === undefined) return undefined
  return soft === 'unlimited' ? 2n ** 64n - 1n : BigInt(soft)
}

function ifAlive<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}

/** It is stopped, or has ended: it does not fork any more. */
export function standsStill(ref: ProcessRef): boolean {
  const stat = readStat(ref.pid)
  return stat?.startTime !== ref.startTime || 'Tt'.includes(stat.state) || !isRunning(stat)
}

/**
 * Lets go of the pid of a dead orphan that became a child of ours (`adoptOrphans`), before the next look would.
 * @returns false if it has to be tried again
 */
export function reapOrphan(ref: ProcessRef): boolean {
  const stat = readStat(ref.pid)
  const isOurs = stat?.startTime === ref.startTime && stat.parent === process.pid
  return !isOurs || stat.state !== 'Z' || reapUnawaited(ref.pid)
}

/** A descriptor that can only mean this very process; undefined if it is gone. */
function openPidfd(ref: ProcessRef): number | undefined {
  let pidfd: number
  try {
    pidfd = sys.pidfdOpen(ref.pid)
  } catch (error) {
    // EINVAL: the number is now that of a thread.
    if (errnoOf(error) === 'ESRCH' || errnoOf(error) === 'EINVAL') return undefined
    throw error
  }
  if (isAlive(ref)) return pidfd
  closeSync(pidfd)
  return undefined
}

/** @returns false if the process is gone */
export function signalProcess(ref: ProcessRef, signal: number): boolean {
  return effectSync('os', 'signal', `${ref.pid}`, () => {
    const pidfd = openPidfd(ref)
    if (pidfd === undefined) return false
    try {
      sys.pidfdSendSignal(pidfd, signal)
      return true
    } catch (error) {
      if (errnoOf(error) === 'ESRCH') return false
      throw error
    } finally {
      closeSync(pidfd)
    }
  })
}

/**
 * Calls once, asynchronously, when the process has ended; also if that was before. Any process, not only children.
 * Keeps the event loop running until then or until disposed.
 */
export function watchExit(ref: ProcessRef, onExit: () => void): { [Symbol.dispose](): void } {
  const pidfd = openPidfd(ref)
  if (pidfd !== undefined) return onPidExit(pidfd, () => !isAlive(ref), onExit)
  const soon = setImmediate(onExit)
  return { [Symbol.dispose]: () => clearImmediate(soon) }
}

/** The living processes whose environment had this variable when they began. */
export function processesWithVariable(name: string, value: string): ProcessRef[] {
  const wanted = `\0${name}=${value}\0`
  return allStats().filter(stat => {
    return isRunning(stat) && `\0${readText(`/proc/${stat.pid}/environ`)}`.includes(wanted)
  })
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return '' // it ended meanwhile, or is being made; a kernel thread has none
  }
}

function allStats(): ProcessStat[] {
  const stats: ProcessStat[] = []
  for (const name of readdirSync('/proc')) {
    const stat = /^[0-9]+$/.test(name) ? readStat(Number(name)) : undefined
    if (stat !== undefined) stats.push(stat)
  }
  return stats
}

/**
 * What descends from these processes and is none of them, parents first; with what is in one of the sessions, and
 * descends from that. One look: what forks meanwhile may be missing.
 */
export function descendantsOf(known: readonly ProcessRef[], sessions?: ReadonlySet<number>): ProcessRef[] {
  return descendantsIn(allStats(), known, sessions)
}

export function descendantsIn(
  stats: readonly ProcessStat[],
  known: readonly ProcessRef[],
  sessions: ReadonlySet<number> = new Set(),
): ProcessRef[] {
  const children = Map.groupBy(stats, stat => stat.parent)
  const given = new Map(known.map(({ pid, startTime }) => [pid, startTime]))
  const isKnown = (stat: ProcessStat) => given.get(stat.pid) === stat.startTime
  const found = new Set(stats.filter(stat => isKnown(stat) || sessions.has(stat.session)))
  for (const parent of found) {
    for (const child of children.get(parent.pid) ?? []) found.add(child)
  }
  return [...found].filter(stat => !isKnown(stat)).map(({ pid, startTime }) => ({ pid, startTime }))
}

/** How often dead orphans that nobody has asked for are looked for: they keep a pid, and their PID namespace, from ending. */
const ORPHANS_MS = 2000

/**
 * Makes this process the parent of whatever its descendants leave behind: that is how the exit code of a process is
 * known which an OCI runtime has started and left. Each orphan's end is collected, by who waits for it or here.
 */
export function adoptOrphans(): void {
  sys.becomeSubreaper()
  let before: readonly number[] = []
  const collect = () => {
    try {
      const dead = sys.hasEndedChild() ? deadChildren() : []
      // One that whoever started it is about to reap does not stay for so long.
      for (const pid of dead) if (before.includes(pid)) reapUnawaited(pid)
      before = dead
    } catch {
      // Short of descriptors, say: they stay until the next look.
    }
  }
  setInterval(collect, ORPHANS_MS).unref()
}

function deadChildren(): number[] {
  return allStats()
    .filter(stat => stat.parent === process.pid && stat.state === 'Z')
    .map(stat => stat.pid)
}

/**
 * Living processes in our mount namespace with all of these on their command lines, each as an argument of its own.
 * What runs in a container can write what it likes on its own command line, and is in another namespace.
 */
export function processesWithArguments(...wanted: readonly string[]): ProcessRef[] {
  const own = mountNamespaceOf(process.pid)
  return livingWith(wanted).filter(({ pid }) => mountNamespaceOf(pid) === own)
}

/** Whether any living process, wherever it runs, has this argument. */
export function isOnACommandLine(argument: string): boolean {
  return livingWith([argument]).length > 0
}

function livingWith(wanted: readonly string[]): ProcessRef[] {
  return allStats().filter(stat => {
    if (!isRunning(stat)) return false
    const given = argumentsOf(stat.pid)
    return wanted.every(argument => given.includes(argument))
  })
}

/** `mnt:[4026531840]`; empty if it has ended. */
function mountNamespaceOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return '' // gone, as with `argumentsOf`
  }
}

/** Its command line; empty if it has ended. */
export function argumentsOf(pid: number): string[] {
  return readText(`/proc/${pid}/cmdline`).split('\0').slice(0, -1)
}

/**
 * SIGHUP and the like to the process group that a child of ours leads, or to it alone if it leads none. Nothing
 * happens once it has ended.
 */
export function signalChild(pid: number, signal: number): void {
  effectSync('os', 'signal-child', `${pid}`, () => {
    for (const target of [-pid, pid]) {
      if (!isAwaited(pid)) return
      try {
        process.kill(target, signal)
        return
      } catch (error) {
        if (errnoOf(error) !== 'ESRCH') throw error
      }
    }
  })
}

/** For a pid that somebody reports: what was there before cannot be what was made since. */
export function beganAfter(ref: ProcessRef, earlier: ProcessRef): boolean {
  return ref.pid !== earlier.pid && BigInt(ref.startTime) >= BigInt(earlier.startTime)
}

/** It leads a session, whose number is its pid. */
export function leadsSession(ref: ProcessRef): boolean {
  const stat = readStat(ref.pid)
  return stat?.startTime === ref.startTime && stat.session === ref.pid
}
