import { closeSync, openSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { release } from 'node:os'
import { effectSync } from '../base/effects.ts'
import { BerthError, errnoOf, isCode, messageOf, precondition } from '../base/errors.ts'
import type { PodUser } from '../model/pod.ts'
import type { IdMapping } from '../model/security.ts'
import { type Child, start } from './spawn.ts'
import * as sys from './syscalls.ts'

/** util-linux, which every Debian has: makes all namespaces in one call, so that the user namespace owns the others. */
const UNSHARE = '/usr/bin/unshare'
/** Does nothing: answers once it runs, and ends with us. */
const ECHO = '/bin/cat'

/** Two programs are started, which takes milliseconds. */
const START_LIMIT_MS = 10_000

/** Namespaces that the user namespace shall own. */
type Owned = { readonly network: boolean; readonly ipc: boolean; readonly uts: boolean }

/**
 * A process with threads cannot make a user namespace: a short one does it, and is there until `use` is over.
 * @throws BerthError precondition if the kernel permits none
 */
export async function withUserNamespace<T>(
  user: PodUser,
  owned: Owned,
  use: (pid: number) => Promise<T> | T,
): Promise<T> {
  const flags = [
    '--user',
    ...(owned.network ? ['--net'] : []),
    ...(owned.ipc ? ['--ipc'] : []),
    ...(owned.uts ? ['--uts'] : []),
  ]
  const child = start(UNSHARE, {
    args: [...flags, ECHO],
    env: {},
    cwd: '/',
    fds: ['pipe-write', 'pipe-read', 'pipe-read'],
  })
  let ended = false
  const exited = child.exited.then(() => {
    ended = true
  })
  try {
    await untilReady(child)
    writeMap(child.pid, 'gid_map', user.gid)
    writeMap(child.pid, 'uid_map', user.uid)
    return await use(child.pid)
  } finally {
    if (!ended) child.kill('SIGKILL')
    await exited
    for (const stream of child.streams) stream?.destroy()
  }
}

async function untilReady(child: Child): Promise<void> {
  const [input, output, errors] = child.streams as readonly [Socket, Socket, Socket]
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let said = ''
  errors.on('data', (text: Buffer) => {
    said = (said + text).slice(-1000)
  })
  output.once('data', () => resolve())
  output.once('close', () => reject(precondition(`a user namespace cannot be made: ${said.trim()}`)))
  const timer = setTimeout(() => {
    reject(new BerthError('deadline', `a user namespace was not made within ${START_LIMIT_MS / 1000} s`))
  }, START_LIMIT_MS)
  input.write('.')
  try {
    await promise
  } finally {
    clearTimeout(timer)
  }
}

function writeMap(pid: number, file: 'uid_map' | 'gid_map', map: IdMapping): void {
  const line = `${map.containerId} ${map.hostId} ${map.length}\n`
  effectSync('os', 'write-id-map', `${pid} ${file}`, () => {
    try {
      writeFileSync(`/proc/${pid}/${file}`, line)
    } catch (error) {
      throw new BerthError('invalid', `${file} ${JSON.stringify(line.trim())}: ${messageOf(error)}`, error)
    }
  })
}

/** Overlays take mapped mounts as layers since then. */
const OVERLAY_SINCE = [5, 19] as const

/**
 * The kernel permits user namespaces and shows files of the file system of `dir` with owners mapped by one, below an
 * overlay too.
 */
export async function mapsMountIds(dir: string): Promise<boolean> {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (major < OVERLAY_SINCE[0] || (major === OVERLAY_SINCE[0] && minor < OVERLAY_SINCE[1])) return false
  const root = { containerId: 0, hostId: 0, length: 1 }
  try {
    return await withUserNamespace(
      { uid: root, gid: root },
      { network: false, ipc: false, uts: false },
      pid => canMap(dir, pid),
    )
  } catch (error) {
    if (isCode(error, 'precondition')) return false
    throw error
  }
}

function canMap(dir: string, pid: number): boolean {
  const namespace = openSync(`/proc/${pid}/ns/user`, 'r')
  const copy = sys.cloneMount(dir)
  try {
    sys.mapMountIds(copy, namespace)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EINVAL' || errnoOf(error) === 'EPERM') return false
    throw error
  } finally {
    closeSync(copy)
    closeSync(namespace)
  }
}
