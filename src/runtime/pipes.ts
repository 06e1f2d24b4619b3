import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'

/** Standard input, output and error: the pipes to us. */
const STDIO = 2

const O_ACCMODE = 0o3

/**
 * Makes a runtime give up copying the output of a process that has ended, while a child of that process still
 * holds the writing ends. One byte into each pipe that the runtime reads wakes its copying; since nobody reads its
 * own output any more (close that first), it fails there and ends, with the exit code of the process.
 * The child is untouched.
 */
export function letGoOfPipes(pid: number): void {
  effectSync('runtime', 'let-go-of-pipes', `${pid}`, () => {
    for (const fd of pipesReadBy(pid)) wake(`/proc/${pid}/fd/${fd}`)
  })
}

function pipesReadBy(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
      .map(Number)
      .filter(fd => fd > STDIO && isPipe(pid, fd) && isReadOnly(pid, fd))
  } catch (error) {
    if (isGone(error)) return []
    throw error
  }
}

function isPipe(pid: number, fd: number): boolean {
  return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('pipe:')
}

function isReadOnly(pid: number, fd: number): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))
  return flags !== null && (Number.parseInt(flags[1]!, 8) & O_ACCMODE) === constants.O_RDONLY
}

function wake(pipe: string): void {
  try {
    const fd = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK)
    try {
      writeSync(fd, '\n')
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    // EAGAIN: full, so there is something to wake it.
    if (!isGone(error) && errnoOf(error) !== 'EAGAIN' && errnoOf(error) !== 'ENXIO') throw error
  }
}

function isGone(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH'
}
