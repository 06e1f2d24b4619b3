import { closeSync, constants, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import { errnoOf, messageOf } from '../base/errors.ts'
import {
  type Answer,
  type Call,
  NAMESPACES,
  type PinRequest,
  type Question,
  sysctlPath,
} from './namespace-calls.ts'
import * as sys from './syscalls.ts'

/*
 * The only thread that leaves the host's namespaces, and only within one call. Everything in it is synchronous:
 * asynchronous file calls would run on libuv's threads, which stay outside. Whatever fails while it is away ends
 * this thread, so that no later call can act in a pod's namespace by mistake.
 */

const MS_BIND = 4096

const home = NAMESPACES.map(({ name, flag }) => ({ flag, fd: openSync(`/proc/thread-self/ns/${name}`, 'r') }))

const port = parentPort
if (port === null) throw new Error('namespace-worker runs as a worker thread only')
port.on('message', ({ id, call }: Question) => {
  try {
    port.postMessage({ id, value: answer(call) } satisfies Answer)
  } catch (error) {
    port.postMessage({ id, message: messageOf(error), code: errnoOf(error) } satisfies Answer)
    port.close()
  }
})

function answer(call: Call): string {
  return call.kind === 'pin' ? pin(call.request) : readNetDev(call.netns)
}

function pin(request: PinRequest): string {
  const wanted = { net: request.network, ipc: request.ipc, uts: request.uts }
  const made = NAMESPACES.filter(({ name }) => wanted[name])
  const files = Object.entries(request.sysctls).map(([key, value]) => [sysctlPath(key), value] as const)
  mkdirSync(request.dir, { recursive: true, mode: 0o700 })
  sys.unshare(made.reduce((flags, { flag }) => flags | flag, 0))
  if (wanted.uts) sys.sethostname(request.hostname)
  if (wanted.net) sys.raiseLoopback()
  for (const [file, value] of files) writeSysctl(file, value)
  for (const { name } of made) {
    const file = `${request.dir}/${name}`
    closeSync(openSync(file, constants.O_CREAT | constants.O_EXCL | constants.O_RDONLY, 0o444))
    sys.mount(`/proc/thread-self/ns/${name}`, file, '', MS_BIND, '')
  }
  goHome()
  return ''
}

function writeSysctl(file: string, value: string): void {
  const fd = openSync(file, constants.O_WRONLY)
  try {
    writeSync(fd, value)
  } finally {
    closeSync(fd)
  }
}

function readNetDev(netns: string): string {
  const fd = openSync(netns, 'r')
  try {
    sys.setns(fd, NAMESPACES[0].flag)
  } finally {
    closeSync(fd)
  }
  const text = readFileSync('/proc/thread-self/net/dev', 'utf8')
  goHome()
  return text
}

function goHome(): void {
  for (const { fd, flag } of home) sys.setns(fd, flag)
}
