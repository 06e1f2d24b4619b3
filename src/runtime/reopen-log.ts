import type { BigIntStats } from 'node:fs'
import { lstatSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { sleep } from '../base/clock.ts'
import { BerthError, errnoOf, precondition } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { REOPEN_LOG, tellMonitor } from './control.ts'

/** The monitor needs less than a millisecond; one that does not answer is hung. */
const REOPEN_MS = 2000

/**
 * Makes the monitor write to a new file at `logPath`, after whoever rotates has renamed the old one. Where the old
 * one still stands there nothing is to be done: a reopening would truncate it.
 * @throws BerthError precondition if the directory or the monitor is gone, deadline if it doesn't answer
 */
export async function reopenLogFile(
  bundle: string,
  monitor: ProcessRef | undefined,
  logPath: string,
): Promise<void> {
  requireDirectory(dirname(logPath))
  const before = lookAt(logPath)
  // The monitor follows symlinks, and writes what the container prints.
  if (before?.isFile() === false) throw precondition(`cannot reopen the log: ${logPath} is no file`)
  if (before !== undefined && monitor !== undefined && hasOpen(monitor.pid, before)) return
  if (!tellMonitor(bundle, REOPEN_LOG)) {
    throw precondition('cannot reopen the log: the container has no monitor any more')
  }
  const deadline = performance.now() + REOPEN_MS
  for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
    const now = lookAt(logPath)
    if (now !== undefined && now.ino !== before?.ino) return
    if (performance.now() > deadline) {
      throw new BerthError('deadline', `the monitor has not reopened ${logPath} within ${REOPEN_MS} ms`)
    }
    await sleep(wait)
  }
}

/** A monitor that cannot create the file ends, and leaves the container unwatched: look first. */
function requireDirectory(directory: string): void {
  const stats = lstatSync(directory, { throwIfNoEntry: false })
  if (stats?.isDirectory() !== true) throw precondition(`cannot reopen the log: ${directory} is no directory`)
}

function lookAt(file: string): BigIntStats | undefined {
  return lstatSync(file, { bigint: true, throwIfNoEntry: false })
}

function hasOpen(pid: number, file: BigIntStats): boolean {
  const directory = `/proc/${pid}/fd`
  try {
    return readdirSync(directory).some(fd => {
      const open = statSync(join(directory, fd), { bigint: true, throwIfNoEntry: false })
      return open?.ino === file.ino && open.dev === file.dev
    })
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return false
    throw error
  }
}
