import { readdirSync, readFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { release } from 'node:os'
import { effectSync } from '../base/effects.ts'
import { errnoOf, precondition } from '../base/errors.ts'
import { CAPABILITIES } from './capabilities.ts'
import { peerCredentials, peerGroups, sendDatagram } from './socket-calls.ts'
import * as sys from './syscalls.ts'

/** Differs after every boot: what lived in the kernel before is gone. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** `6.1.0-18-amd64` */
export function kernelRelease(): string {
  return release()
}

/** Names of the capabilities that a child of ours can get at most: `CAP_CHOWN`, … */
export function boundingCapabilities(): readonly string[] {
  return capabilitiesIn(readFileSync('/proc/self/status', 'utf8'))
}

/** Of the text of /proc/PID/status. */
export function capabilitiesIn(status: string): readonly string[] {
  const mask = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`)
  return CAPABILITIES.filter((_, bit) => ((mask >> BigInt(bit)) & 1n) === 1n)
}

/** The kernel takes system calls of the x32 ABI: few distributions build it in (x86-64 only). */
export function hasX32(): boolean {
  return process.arch === 'x64' && sys.probeX32()
}

// RLIMIT_* numbers of the kernel's generic table (x86-64, arm64, riscv64), in its order.
const RLIMITS = [
  'RLIMIT_CPU',
  'RLIMIT_FSIZE',
  'RLIMIT_DATA',
  'RLIMIT_STACK',
  'RLIMIT_CORE',
  'RLIMIT_RSS',
  'RLIMIT_NPROC',
  'RLIMIT_NOFILE',
  'RLIMIT_MEMLOCK',
  'RLIMIT_AS',
  'RLIMIT_LOCKS',
  'RLIMIT_SIGPENDING',
  'RLIMIT_MSGQUEUE',
  'RLIMIT_NICE',
  'RLIMIT_RTPRIO',
  'RLIMIT_RTTIME',
] as const

/** The OCI specification's names. */
export type RlimitName = (typeof RLIMITS)[number]

/** This process's own hard limit, which a child can have at most; 2⁶⁴−1 is unlimited. */
export function hardLimit(name: RlimitName): bigint {
  return sys.getLimit(RLIMITS.indexOf(name)).hard
}

export function oomScoreAdj(): number {
  return Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))
}

/**
 * Node marks inherited descriptors close-on-exec only up to the first hole above 15: whatever systemd or a shell
 * left open beyond would reach every container.
 */
export function closeOnExecAll(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name)
    if (fd <= 2) continue
    try {
      sys.setCloseOnExec(fd)
    } catch (error) {
      if (errnoOf(error) !== 'EBADF') throw error // the one that listed the directory
    }
  }
}

/** Soft limit of open files to the hard one: each container holds several. */
export function raiseFileLimit(): void {
  const resource = RLIMITS.indexOf('RLIMIT_NOFILE')
  const { soft, hard } = sys.getLimit(resource)
  if (soft < hard) effectSync('os', 'raise-file-limit', `${hard}`, () => sys.setLimit(resource, hard, hard))
}

/** sd_notify(3): `READY=1`, `WATCHDOG=1`, … `socket` is the value of NOTIFY_SOCKET. */
export function notifySystemd(state: string, socket: string): void {
  effectSync('os', 'notify-systemd', state, () => sendDatagram(socket, state))
}

// Node's default UV_THREADPOOL_SIZE is 4; more requests than threads make sure that all are there.
const POOL_TASKS = 8

/**
 * Starts libuv's thread pool from the calling thread. Its threads inherit that one's namespaces, so this comes
 * before any worker that enters others.
 */
export async function warmThreadPool(): Promise<void> {
  await Promise.all(Array.from({ length: POOL_TASKS }, () => stat('/')))
}

/** Who is at the other end of a connected unix socket. */
export type Peer = {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** Supplementary ones, where they may matter: not asked for root. */
  readonly groups: readonly number[]
  /** Name of its program, as the kernel shows it; '' if it has ended, or is in a PID namespace that we don't see. */
  readonly command: string
}

/** The credentials are those of when it connected (SO_PEERCRED); a process can change its command at any time. */
export function peerOf(socketFd: number): Peer {
  const credentials = peerCredentials(socketFd)
  const groups = credentials.uid === 0 ? [] : peerGroups(socketFd)
  return { ...credentials, groups, command: commandOf(credentials.pid) }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd()
  } catch {
    return ''
  }
}

/**
 * @param group a number, or a name in /etc/group
 * @throws BerthError precondition if there is no such group
 */
export function groupId(group: string): number {
  if (/^\d+$/.test(group)) return Number(group)
  const line = readIfThere('/etc/group')
    .split('\n')
    .find(text => text.startsWith(`${group}:`))
  const id = line?.split(':')[2]
  if (id === undefined || !/^\d+$/.test(id)) {
    throw precondition(
      `there is no group ${JSON.stringify(group)} in /etc/group; name one that is there, or a number`,
    )
  }
  return Number(id)
}

export type KernelFeatures = {
  readonly apparmor: boolean
  readonly seccomp: boolean
}

export function kernelFeatures(): KernelFeatures {
  return {
    apparmor: readIfThere('/sys/module/apparmor/parameters/enabled').startsWith('Y'),
    seccomp: readIfThere('/proc/sys/kernel/seccomp/actions_avail').includes('errno'),
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}
