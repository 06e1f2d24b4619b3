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

/** Takes over `pidfd` and calls once when its process has ended. `hasEnded` is asked where polling is needed. */
export function onPidfdReadable(pidfd: number, hasEnded: () => boolean, onExit: () => void): Watch {
  return byPipe ? watchByPipe(pidfd, onExit) : watchByPolling(pidfd, hasEnded, onExit)
}

/**
 * Runs a child to see that its exit is announced; to be awaited before the first real one is started.
 * @returns false if exits are found by polling from now on
 */
export async function checkExitNotices(): Promise<boolean> {
  const env = {}
  const pid = posixSpawn({ file: '/bin/true', args: [], env, cwd: '/', fds: [], newSession: false })
  const { promise: noticed, resolve } = Promise.withResolvers<boolean>()
  let watch: Watch | undefined
  try {
    watch = watchByPipe(sys.pidfdOpen(pid), () => resolve(true))
  } catch {
    resolve(false)
  }
  const stop = new AbortController()
  const late = sleep(SELF_TEST_MS, stop.signal).then(
    () => false,
    () => false,
  )
  byPipe = (await Promise.race([noticed, late])) && sys.reap(pid) === 0
  stop.abort()
  watch?.[Symbol.dispose]()
  if (!byPipe) while (sys.reap(pid) === undefined) await sleep(POLL_MS)
  return byPipe
}

function watchByPipe(pidfd: number, onExit: () => void): Watch {
  const socket = wrapHandle(pidfd)
  let done = false
  const finish = () => {
    if (!done) onExit()
    done = true
  }
  socket.once('error', finish)
  socket.resume()
  return {
    [Symbol.dispose]: () => {
      done = true
      socket.destroy()
    },
  }
}

function watchByPolling(pidfd: number, hasEnded: () => boolean, onExit: () => void): Watch {
  closeSync(pidfd)
  const timer = setInterval(() => {
    if (!hasEnded()) return
    clearInterval(timer)
    onExit()
  }, POLL_MS)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Any pollable descriptor as a stream whose reads and writes are plain read(2) and write(2). */
export function wrapHandle(fd: number, allowHalfOpen = false): net.Socket {
  pipeClass ??= findPipeClass()
  const handle = new pipeClass(0)
  handle.open(fd)
  // Node declares another type for its `handle`.
  const options: object = { handle, readable: true, writable: allowHalfOpen, allowHalfOpen }
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
