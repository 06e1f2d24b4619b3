import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeSync,
} from 'node:fs'
import { join, posix } from 'node:path'
import { sleep } from '../../base/clock.ts'
import { effectSync } from '../../base/effects.ts'
import { BerthError, errnoOf, internal } from '../../base/errors.ts'

/** What both versions do with the directories of control groups. */

/** @throws BerthError internal: a path that is not absolute and clean never names a group */
export function checkGroupPath(path: string): string {
  if (path.startsWith('/') && path !== '/' && posix.normalize(path) === path && !path.endsWith('/'))
    return path
  throw internal(`cgroup path ${JSON.stringify(path)} is not absolute and clean`)
}

/** `/a/b` → `/a`, `/a/b` */
export function ancestors(path: string): string[] {
  const parts = path.split('/').slice(1)
  return parts.map((_, i) => `/${parts.slice(0, i + 1).join('/')}`)
}

/** '' for a file that is not there, or whose group vanished between open and read. */
export function readFile(dir: string, file: string): string {
  try {
    return readFileSync(join(dir, file), 'utf8')
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'EOPNOTSUPP') return ''
    throw error
  }
}

export function writeFile(dir: string, file: string, value: string): void {
  const path = join(dir, file)
  // No O_CREAT: the kernel makes these files, and a missing one is an error.
  effectSync('os', 'write-cgroup', path, () => writeExisting(path, value))
}

function writeExisting(path: string, value: string): void {
  const fd = openSync(path, constants.O_WRONLY)
  try {
    writeSync(fd, value)
  } finally {
    closeSync(fd)
  }
}

/** Containers read their limits there, whoever their user is. @returns true if it was made now */
export function makeGroup(dir: string): boolean {
  try {
    effectSync('os', 'make-cgroup', dir, () => {
      mkdirSync(dir)
      chmodSync(dir, 0o755)
    })
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

/** Names of the groups directly below `dir`; none if it does not exist. */
export function childrenOf(dir: string): string[] {
  try {
    const entries = readdirSync(dir, { withFileTypes: true })
    return entries.filter(entry => entry.isDirectory()).map(entry => entry.name)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}

/** Groups below `dir`, deepest first, then `dir` itself; empty if it does not exist. */
export function groupsIn(dir: string): string[] {
  if (!existsSync(dir)) return []
  return [...childrenOf(dir).flatMap(name => groupsIn(join(dir, name))), dir]
}

/** Processes of `dir` and below. The kernel shows those of a foreign pid namespace as 0: nobody can name them. */
export function pidsIn(dir: string): number[] {
  return groupsIn(dir)
    .flatMap(group => readFile(group, 'cgroup.procs').split('\n').map(Number))
    .filter(pid => pid > 0)
}

/** Everything in `dir` and below, at once where the kernel can (`cgroup.kill`, Linux 5.14). */
export function killGroup(dir: string): void {
  effectSync('os', 'kill-cgroup', dir, () => {
    if (existsSync(join(dir, 'cgroup.kill'))) {
      writeExisting(join(dir, 'cgroup.kill'), '1')
      return
    }
    for (const pid of pidsIn(dir)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (error) {
        if (errnoOf(error) !== 'ESRCH') throw error
      }
    }
  })
}

// The last process of a group may still be on its way out for a moment after it is no longer listed: 31 ms in all.
const RMDIR_WAITS_MS = [1, 2, 4, 8, 16]

export function removeGroup(dir: string): void {
  for (const group of groupsIn(dir)) {
    effectSync('os', 'remove-cgroup', group, () => {
      for (const ms of RMDIR_WAITS_MS) {
        if (tryRemove(group)) return
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
      }
      rmdirSync(group)
    })
  }
}

function tryRemove(dir: string): boolean {
  try {
    rmdirSync(dir)
    return true
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'EBUSY') return false
    if (code === 'ENOENT') return true
    throw error
  }
}

// A process in uninterruptible sleep (a dead NFS server) does not die; the caller says so and tries again later.
const KILL_LIMIT_MS = 10_000

/** Calls `strike`, which kills what there is, until `remaining` names no process. */
export async function killUntilEmpty(
  path: string,
  strike: () => void,
  remaining: () => number[],
): Promise<void> {
  const start = performance.now()
  let left = remaining()
  for (let wait = 1; left.length > 0; wait = Math.min(wait * 2, 100)) {
    if (performance.now() - start > KILL_LIMIT_MS) {
      const pids = left.slice(0, 10).join(', ')
      throw new BerthError('deadline', `cgroup ${path}: processes ${pids} are left 10 s after SIGKILL`)
    }
    strike()
    await sleep(wait)
    left = remaining()
  }
}
