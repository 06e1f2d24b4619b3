import { closeSync } from 'node:fs'
import { sleep } from '../base/clock.ts'
import { wrapDescriptor } from './handles.ts'
import { posixSpawn } from './posix-spawn.ts'
import * as sys from './syscalls.ts'

/*
 * Exits in the event loop. A pidfd turns readable when its process ends. libuv has no handle for that, but its Pipe
 * handle polls any descriptor (`handles.ts`); the read that follows fails with EINVAL, and that is the news. This is
 * documented nowhere, so `checkExitNotices` tries it at start: where it does not work, exits are found by looking.
 */

let byPipe = true

const POLL_MS = 20
const SELF_TEST_MS = 2000

type Watch = { [Symbol.dispose](): void }

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
  const socket = wrapDescriptor(pidfd, 'read')
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
