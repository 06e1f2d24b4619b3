import { errnoOf } from '../base/errors.ts'
import { onPidExit } from './pidfd.ts'
import * as sys from './syscalls.ts'

/*
 * The children of this process: those it started, and orphans that became its own because it is a subreaper: the
 * monitors, and what an OCI runtime has started in a container before it ended. The kernel keeps a dead child's pid
 * until it is reaped, so each must be, by exactly one.
 */

/** Those whose exit code somebody waits for, and who will reap them. */
const awaited = new Set<number>()

/**
 * Exit code, or 128 + n for signal n.
 * @throws SyscallError ECHILD at once if it is no child of ours, or is reaped already
 */
export function exitOf(pid: number): Promise<number> {
  let code = sys.reap(pid)
  if (code !== undefined) return Promise.resolve(code)
  const { promise, resolve } = Promise.withResolvers<number>()
  awaited.add(pid)
  const hasEnded = () => {
    code ??= sys.reap(pid)
    if (code !== undefined) awaited.delete(pid)
    return code !== undefined
  }
  const onExit = () => {
    if (code !== undefined) resolve(code)
  }
  let pidfd: number | undefined
  try {
    pidfd = sys.pidfdOpen(pid)
  } catch {
    // It runs already; without a descriptor for it, it is watched all the same.
  }
  onPidExit(pidfd, hasEnded, onExit)
  return promise
}

/** Its pid cannot be anybody else's yet: somebody waits for its exit code, which has not been read. */
export function isAwaited(pid: number): boolean {
  return awaited.has(pid)
}

/**
 * Reaps a dead process if it is a child of ours for which nobody waits.
 * @returns false if the kernel does not let go of it yet: another of its threads is still ending
 */
export function reapUnawaited(pid: number): boolean {
  if (awaited.has(pid)) return true
  try {
    return sys.reap(pid) !== undefined
  } catch (error) {
    if (errnoOf(error) === 'ECHILD') return true
    throw error
  }
}
