import { closeSync } from 'node:fs'
import net from 'node:net'
import { sleep } from '../base/clock.ts'
import { posixSpawn } from './posix-spawn.ts'
import * as sys from './syscalls.ts'

/*
 * Exits in the event loop. A pidfd turns readable when its process ends. libuv has no handle for that, but its Pipe
 * handle polls any descriptor; the read that follows fails with EINVAL, and that is the news. Node documents
 * neither, so both are used in this file only, and `checkExitNotices` tries them at start: where they do not work,
 * exits are found by looking.
 */

let byPipe = true

const POLL_MS = 20
const SELF_TEST_MS = 2000

type Watch = { [Symbol.dispose](): void }
type PipeHandle = { open(fd: number): void }
type PipeClass = new (type: number) => PipeHandle

let pipeClass: PipeClass | undefined

/**
 * Takes over `pidfd` and calls once when its process has ended, which `hasEnded` then confirms. Without one (no
 * descriptors left), or where it is not announced, `hasEnded` is asked again and again.
 */
export function onPidExit(pidfd: number | undefined, hasEnded: () => boolean, onExit: () => void): Watch {
  if (pidfd !== undefined && byPipe) return watchByPipe(pidfd, hasEnded, onExit)
  if (pidfd !== undefined) closeSync(pidfd)
  return watchByPolling(hasEnded, onExit)
}

/**
 * Runs a child to see that its exit is announced; to be awaited before the first real one is started.
 * @returns false if exits are found by polling from now on
 */
export async function checkExitNotices(): Promise<boolean> {
  const pid = posixSpawn({ file: '/bin/true', args: [], env: {}, cwd: '/', fds: [], newSession: false })
  const { promise: noticed, resolve } = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => resolve(false), SELF_TEST_MS)
  const hasEnded = () => true // what is tested is whether anybody asks
  let watch: Watch | undefined
  try {
    watch = watchByPipe(sys.pidfdOpen(pid), hasEnded, () => resolve(true))
  } catch {
    resolve(false)
  }
  byPipe = await noticed
  clearTimeout(timer)
  watch?.[Symbol.dispose]()
  while (sys.reap(pid) === undefined) await sleep(POLL_MS)
  return byPipe
}

function watchByPipe(pidfd: number, hasEnded: () => boolean, onExit: () => void): Watch {
  const socket = wrapHandle(pidfd)
  let polling: Watch | undefined
  let disposed = false
  socket.once('error', () => {
    if (disposed) return
    if (hasEnded()) onExit()
    else polling = watchByPolling(hasEnded, onExit)
  })
  socket.resume()
  return {
    [Symbol.dispose]: () => {
      disposed = true
      polling?.[Symbol.dispose]()
      socket.destroy()
    },
  }
}

function watchByPolling(hasEnded: () => boolean, onExit: () => void): Watch {
  const timer = setInterval(() => {
    if (!hasEnded()) return
    clearInterval(timer)
    onExit()
  }, POLL_MS)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** A pollable descriptor as a stream that is only read. */
function wrapHandle(fd: number): net.Socket {
  pipeClass ??= findPipeClass()
  const handle = new pipeClass(0)
  handle.open(fd)
  // Node declares another type for its `handle`.
  const options: object = { handle, readable: true, writable: false }
  return new net.Socket(options)
}

function findPipeClass(): PipeClass {
  const [read, write] = sys.pipe()
  closeSync(write)
  const socket = new net.Socket({ fd: read }) as net.Socket & { _handle: { constructor: PipeClass } }
  const found = socket._handle.constructor
  socket.destroy()
  return found
}
