import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'

/** What the tests could leave behind on this machine: one line for each thing. */
export type Snapshot = ReadonlySet<string>

export function takeSnapshot(): Snapshot {
  return new Set([
    ...processes(),
    ...mounts(),
    ...networkNamespaces(),
    ...named('network interface', '/sys/class/net', /./),
    ...cgroups('/sys/fs/cgroup'),
    ...named('directory', '/run', /^(berth|runc|crun|conmon|cni)/),
    ...named('directory', '/run/runc', /./),
    ...named('directory', '/run/netns', /./),
    ...named('directory', '/var/lib', /^(berth|cni)/),
    ...named('directory', '/var/lib/cni', /./),
    ...named('directory', '/var/lib/cni/networks', /./),
    ...named('directory', '/etc/cni/net.d', /./),
    ...named('directory', '/tmp', /^berth/),
    ...named('directory', '/var/tmp', /^berth/),
    ...named('directory', '/dev/shm', /./),
    ...rules('iptables-save'),
    ...rules('ip6tables-save'),
  ])
}

/**
 * What is there now and was not there before. Something may still be on its way out when a test has seen what it
 * waited for, so it gets a moment.
 */
export async function leftovers(before: Snapshot, patienceMs = 3000): Promise<string[]> {
  const end = Date.now() + patienceMs
  for (;;) {
    const left = [...takeSnapshot()].filter(thing => !before.has(thing))
    if (left.length === 0 || Date.now() > end) return left.sort()
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}

const OURS = /^(conmon|runc|crun|catatonit|containerd|fuse-overlayfs)/
const OUR_SCRIPTS = /\/(qemu-system-x86_64|berth\.mjs|src\/main\.ts|[a-z]+-worker\.(ts|mjs))(\0|$)/

function processes(): string[] {
  return pids().flatMap(pid => {
    const command = read(`/proc/${pid}/cmdline`)
    const name = read(`/proc/${pid}/comm`).trim()
    if (!OURS.test(name) && !OUR_SCRIPTS.test(command)) return []
    return [`process ${pid}: ${command.replaceAll('\0', ' ').trim().slice(0, 200) || name}`]
  })
}

function mounts(): string[] {
  const points = read('/proc/self/mountinfo')
    .split('\n')
    .map(line => line.split(' ')[4])
    .filter(point => point !== undefined)
  const counts = Map.groupBy(points, point => point)
  // The same mount point twice is one mount on top of the other.
  return [...counts].map(([point, all]) => `mount ${point}${all.length > 1 ? ` (${all.length} deep)` : ''}`)
}

function networkNamespaces(): string[] {
  return pids().flatMap(pid => {
    try {
      return [`network namespace ${readlinkSync(`/proc/${pid}/ns/net`)}`]
    } catch {
      return [] // ended meanwhile
    }
  })
}

/** Directories of every hierarchy; systemd's own units come and go by themselves. */
function cgroups(directory: string): string[] {
  return entries(directory, true)
    .filter(name => !/\.(scope|service)$|^(system|user|init)\.s/.test(name))
    .flatMap(name => {
      const path = join(directory, name)
      return [`cgroup ${path}`, ...cgroups(path)]
    })
}

function named(kind: string, directory: string, pattern: RegExp): string[] {
  return entries(directory, false)
    .filter(name => pattern.test(name))
    .map(name => `${kind} ${join(directory, name)}`)
}

/** Without packet counters and comments, which change by themselves. */
function rules(save: string): string[] {
  let text: string
  try {
    text = execFileSync(save, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  } catch {
    return [] // no such program or no such table in this kernel: no rules either
  }
  let table = ''
  return text.split('\n').flatMap(line => {
    if (line.startsWith('*')) table = line.slice(1)
    if (!/^[-:]/.test(line)) return []
    return [`${basename(save, '-save')} rule in ${table}: ${line.replace(/ ?\[\d+:\d+\]/, '')}`]
  })
}

function pids(): string[] {
  return entries('/proc', true).filter(name => /^\d+$/.test(name))
}

function entries(directory: string, onlyDirectories: boolean): string[] {
  try {
    return readdirSync(realpathSync(directory), { withFileTypes: true })
      .filter(entry => !onlyDirectories || entry.isDirectory())
      .map(entry => entry.name)
  } catch {
    return []
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
