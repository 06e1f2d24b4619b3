import { closeSync } from 'node:fs'
import type net from 'node:net'
import { effectSync } from '../base/effects.ts'
import { descriptorOf, wrapDescriptor } from './handles.ts'
import { listenAt, takeDescriptor } from './socket-calls.ts'
import * as sys from './syscalls.ts'

/**
 * Where an OCI runtime sends the master end of a terminal that it made in the container (its `--console-socket`).
 * The path must fit the 107 bytes of a socket's address; whoever owns the directory removes it.
 */
export class ConsoleSocket {
  readonly path: string
  readonly #fd: number

  constructor(path: string) {
    this.path = path
    this.#fd = effectSync('os', 'listen', path, () => listenAt(path))
  }

  /** What has been sent, as a stream of both ways; undefined if nothing has. Its end is an error, EIO. */
  take(): net.Socket | undefined {
    const fd = takeDescriptor(this.#fd)
    return fd === undefined ? undefined : wrapDescriptor(fd, 'both')
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}

/** Sets the size of a terminal by its master, of which its foreground processes learn by SIGWINCH. Both at least 1. */
export function resizeTerminal(master: net.Socket, columns: number, rows: number): void {
  const fd = descriptorOf(master)
  if (fd === undefined) return
  sys.setWindowSize(fd, Math.min(columns, MAX_CELLS), Math.min(rows, MAX_CELLS))
}

/** struct winsize holds 16 bits of each. */
const MAX_CELLS = 0xffff
