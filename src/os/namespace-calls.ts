/* What the namespace worker is asked and answers, for both threads. */

import { readlinkSync } from 'node:fs'
import { type ErrorCode, invalid } from '../base/errors.ts'
import type { PodUser } from '../model/pod.ts'

export const CLONE_NEWNET = 0x40000000
export const CLONE_NEWNS = 0x00020000
export const CLONE_FS = 0x00000200

/** File names below /proc/PID/ns and in a pin directory, with the flags of unshare(2) and setns(2). */
export const NAMESPACES = [
  { name: 'net', flag: CLONE_NEWNET },
  { name: 'ipc', flag: 0x08000000 },
  { name: 'uts', flag: 0x04000000 },
] as const

/** Files of a pin directory. */
export const PINS = [...NAMESPACES.map(({ name }) => name), 'user'] as const

export type Pin = (typeof PINS)[number]

export type PinRequest = {
  /** Made if it is missing; gets one file per new namespace: `net`, `ipc`, `uts`, `user`. */
  readonly dir: string
  /** New ones; what is false the pod shares with the node. */
  readonly network: boolean
  readonly ipc: boolean
  readonly uts: boolean
  /** A new user namespace that owns the others. */
  readonly user?: PodUser | undefined
  /** At most 64 bytes. Only set in a UTS namespace of the pod's own. */
  readonly hostname: string
  /** `net.ipv4.ip_forward` → `1`. The keys were checked against the namespaces that the pod has. */
  readonly sysctls: Readonly<Record<string, string>>
}

/** The node's own namespaces, as descriptors of this process: where the worker goes back to. */
export type Home = Readonly<Record<(typeof NAMESPACES)[number]['name'], number>>

export type Call =
  /** The links in /proc/thread-self/ns, joined by a space: which namespaces the worker is in. */
  | { readonly kind: 'where' }
  /** `helper`: the process that holds the new namespaces when a user namespace is among them. */
  | { readonly kind: 'pin'; readonly request: PinRequest; readonly helper?: number }
  /** The text of /proc/net/dev in the network namespace at that path. */
  | { readonly kind: 'net-dev'; readonly netns: string }
  /** The descriptor of a TCP socket in the network namespace at that path; it belongs to who asked. */
  | { readonly kind: 'tcp-socket'; readonly netns: string; readonly family: 4 | 6 }
  /** A descriptor of a copy of the mount that is the root of that process; it belongs to who asked. */
  | { readonly kind: 'root-of'; readonly pid: number }

export type Question = { readonly id: number; readonly call: Call }

export type Answer =
  | { readonly id: number; readonly value: string }
  | { readonly id: number; readonly message: string; readonly code: ErrorCode }

/** `net:[4026531840] ipc:[…] uts:[…]` of a directory /proc/…/ns */
export function linksOf(dir: string): string {
  return NAMESPACES.map(({ name }) => readlinkSync(`${dir}/${name}`)).join(' ')
}

/**
 * The file of a sysctl. As sysctl(8) reads names: the separator that comes first is the separator; with dots, a
 * slash stands for a dot inside a name (`net.ipv4.conf.eth0/100.rp_filter`).
 * @throws BerthError invalid for what is no name below /proc/sys
 */
export function sysctlPath(key: string): string {
  const first = /[./]/.exec(key)?.[0]
  const path = first === '.' ? key.replace(/[./]/g, c => (c === '.' ? '/' : '.')) : key
  const parts = path.split('/')
  if (!/^[A-Za-z0-9_./@:-]+$/.test(key) || parts.some(part => part === '' || part === '.' || part === '..')) {
    throw invalid(`sysctl ${JSON.stringify(key)}`, 'expected a name such as net.ipv4.ip_forward')
  }
  return `/proc/sys/${path}`
}
