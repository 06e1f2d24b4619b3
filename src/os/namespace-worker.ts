import { closeSync, constants, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { BerthError, messageOf } from '../base/errors.ts'
import type { PodUser } from '../model/pod.ts'
import { bindMount } from './mounts.ts'
import {
  type Answer,
  type Call,
  CLONE_FS,
  CLONE_NEWNET,
  CLONE_NEWNS,
  type Home,
  linksOf,
  NAMESPACES,
  type PinRequest,
  type Question,
  sysctlPath,
} from './namespace-calls.ts'
import { tcpSocket } from './socket-calls.ts'
import * as sys from './syscalls.ts'

/*
 * The only thread that leaves the node's namespaces, and only within one call. Everything in it is synchronous:
 * asynchronous file calls would run on libuv's threads, which stay outside. What fails on the way out or back ends
 * this thread, so that no later call can act in a pod's namespace by mistake.
 */

const home = workerData as Home
const port = parentPort
if (port === null) throw new Error('namespace-worker runs as a worker thread only')
let away = false
let lost = false
port.on('message', ({ id, call }: Question) => {
  if (lost) return // closing the port does not stop what has arrived; the next worker is asked again
  try {
    port.postMessage({ id, value: answer(call) } satisfies Answer)
  } catch (error) {
    lost = away
    const code = error instanceof BerthError ? error.code : 'internal'
    port.postMessage({ id, message: messageOf(error), code } satisfies Answer)
    if (lost) port.close()
  }
})

function answer(call: Call): string {
  if (call.kind === 'pin') return pin(call.request, call.helper)
  if (call.kind === 'net-dev')
    return inNetwork(call.netns, () => readFileSync('/proc/thread-self/net/dev', 'utf8'))
  if (call.kind === 'tcp-socket') return inNetwork(call.netns, () => `${tcpSocket(call.family)}`)
  if (call.kind === 'root-of') return `${rootOf(call.pid)}`
  return linksOf('/proc/thread-self/ns')
}

let hasOwnDirectories = false

/** Only a thread that shares its root and working directory with no other may enter a mount namespace. */
function rootOf(pid: number): number {
  if (!hasOwnDirectories) sys.unshare(CLONE_FS)
  hasOwnDirectories = true
  const here = openSync('/proc/thread-self/ns/mnt', constants.O_RDONLY)
  const there = openSync(`/proc/${pid}/ns/mnt`, constants.O_RDONLY)
  try {
    sys.setns(there, CLONE_NEWNS)
    away = true
    const mount = sys.cloneMount('/')
    sys.setns(here, CLONE_NEWNS)
    away = false
    return mount
  } finally {
    closeSync(here)
    closeSync(there)
  }
}

/** Makes the namespaces, or enters those that a helper process made together with a user namespace. */
function pin(request: PinRequest, helper: number | undefined): string {
  const wanted = { net: request.network, ipc: request.ipc, uts: request.uts }
  const made = NAMESPACES.filter(({ name }) => wanted[name])
  const source = helper === undefined ? '/proc/thread-self/ns' : `/proc/${helper}/ns`
  const sysctls = Object.entries(request.sysctls).map(([key, value]) => ({
    key,
    value,
    file: sysctlPath(key),
  }))
  mkdirSync(request.dir, { recursive: true, mode: 0o700 })
  away = true
  if (helper === undefined) sys.unshare(made.reduce((flags, { flag }) => flags | flag, 0))
  else for (const { name, flag } of made) enter(`${source}/${name}`, flag)
  if (wanted.uts) sys.sethostname(request.hostname)
  if (wanted.net) sys.raiseLoopback()
  for (const sysctl of sysctls) writeSysctl(sysctl, request.user)
  for (const name of [...made.map(({ name }) => name), ...(helper === undefined ? [] : ['user'])]) {
    const file = `${request.dir}/${name}`
    closeSync(openSync(file, constants.O_CREAT | constants.O_EXCL | constants.O_RDONLY, 0o444))
    bindMount(`${source}/${name}`, file)
  }
  goHome()
  return ''
}

function enter(path: string, flag: number): void {
  const fd = openSync(path, constants.O_RDONLY)
  try {
    sys.setns(fd, flag)
    away = true
  } finally {
    closeSync(fd)
  }
}

type Sysctl = { readonly key: string; readonly value: string; readonly file: string }

/** Those of an IPC namespace belong to the root of the user namespace that owns it; the node's root cannot write. */
function writeSysctl(sysctl: Sysctl, user: PodUser | undefined): void {
  if (user === undefined || sysctl.key.startsWith('net')) writeValue(sysctl)
  else sys.withEffectiveIds(user.uid.hostId, user.gid.hostId, () => writeValue(sysctl))
}

function writeValue({ key, value, file }: Sysctl): void {
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

function inNetwork(netns: string, ask: () => string): string {
  try {
    enter(netns, CLONE_NEWNET)
    return ask()
  } finally {
    if (away) goHome()
  }
}

function goHome(): void {
  for (const { name, flag } of NAMESPACES) sys.setns(home[name], flag)
  away = false
}
