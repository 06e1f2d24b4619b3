import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { errnoOf } from '../base/errors.ts'
import type { TerminalSize } from './channels.ts'

/** The monitor drops a line with a larger number. */
const MAX_CELLS = 1000

/** `2` is "reopen the log"; the monitor reads three numbers a line. */
export const REOPEN_LOG = '2 0 0\n'

/** `1` is the size of the container's terminal. */
export function resizeLine({ width, height }: TerminalSize): string {
  return `1 ${Math.min(height, MAX_CELLS)} ${Math.min(width, MAX_CELLS)}\n`
}

/**
 * One line to the monitor of a bundle. Never blocks: without a reader the open fails at once.
 * @returns false if there is no monitor any more
 * @throws Error EAGAIN if it is stopped and has not read earlier ones
 */
export function tellMonitor(bundle: string, line: string): boolean {
  return effectSync('runtime', 'tell-monitor', bundle, () => {
    let fifo: number
    try {
      fifo = openSync(join(bundle, 'ctl'), constants.O_WRONLY | constants.O_NONBLOCK)
    } catch (error) {
      if (errnoOf(error) === 'ENXIO' || errnoOf(error) === 'ENOENT') return false
      throw error
    }
    try {
      writeSync(fifo, line)
      return true
    } catch (error) {
      if (errnoOf(error) === 'EPIPE') return false
      throw error
    } finally {
      closeSync(fifo)
    }
  })
}
