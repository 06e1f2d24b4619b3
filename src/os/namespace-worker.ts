import { closeSync, constants, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { BerthError, messageOf } from '../base/errors.ts'
import { bindMount } from './mounts.ts'
import {
  type Answer,
  type Call,
  CLONE_NEWNET,
  type Home,
  linksOf,
  NAMESPACES,
  type PinRequest,
  type Question,
  sysctlPath,
} from './namespace-calls.ts'
import * as sys from './syscalls.ts'

/*
 * The only thread that leaves the node's namespaces, and only within one call. Everything in it is synchronous:
 * asynchronous file calls would run on libuv's threads, which stay outside. Whatever fails ends this thread, so that
 * no later call can act in a pod's namespace by mistake.
 */

const home = workerData as Home
const port = parentPort
if (port === null) throw new Error('namespace-worker runs as a worker thread only')
let lost = false
port.on('message', ({ id, call }: Question) => {
  if (lost) return // closing the port does not stop what has arrived; the next worker is asked again
  try {
    port.postMessage({ id, value: answer(call) } satisfies Answer)
  } catch (error) {
    lost = true
    const code = error instanceof BerthError ? error.code : 'internal'
    port.postMessage({ id, message: messageOf(error), code } satisfies Answer)
    port.close()
  }
})

function answer(call: Call): string {
  if (call.kind === 'pin') return pin(call.request)
  return call.kind === 'net-dev' ? readNetDev(call.netns) : linksOf('/proc/thread-self/ns')
}

function pin(request: PinRequest): string {
  const wanted = { net: request.network, ipc: request.ipc, uts: request.uts }
  const made = NAMESPACES.filter(({ name }) => wanted[name])
  const sysctls = Object.entries(request.sysctls).map(([key, value]) => ({
    key,
    value,
    file: sysctlPath(key),
  }))
  mkdirSync(request.dir, { recursive: true, mode: 0o700 })
  sys.unshare(made.reduce((flags, { flag }) => flags | flag, 0))
  if (wanted.uts) sys.sethostname(request.hostname)
  if (wanted.net) sys.raiseLoopback()
  for (const sysctl of sysctls) writeSysctl(sysctl)
  for (const { name } of made) {
    const file = `${request.dir}/${name}`
    closeSync(openSync(file, constants.O_CREAT | constants.O_EXCL | constants.O_RDONLY, 0o444))
    bindMount(`/proc/thread-self/ns/${name}`, file)
  }
  goHome()
  return ''
}

function writeSysctl({ key, value, file }: { key: string; value: string; file: string }): void {
  try {
    const fd = openSync(file, constants.O_WRONLY)
    try {
      writeSync(fd, value)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw new BerthError('invalid', `sysctl ${key} = ${JSON.stringify(value)}: ${messageOf(error)}`, error)
  }
}

function readNetDev(netns: string): string {
  const fd = openSync(netns, 'r')
  try {
    sys.setns(fd, CLONE_NEWNET)
  } finally {
    closeSync(fd)
  }
  const text = readFileSync('/proc/thread-self/net/dev', 'utf8')
  goHome()
  return text
}

function goHome(): void {
  for (const { name, flag } of NAMESPACES) sys.setns(home[name], flag)
}
