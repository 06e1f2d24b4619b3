import { existsSync, globSync, readdirSync, readFileSync, rmdirSync, statSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { umount } from '../../src/os/syscalls.ts'
import { output } from './command.ts'
import type { BerthDaemon } from './daemon.ts'
import { until } from './wait.ts'

const MNT_DETACH = 2

/** Everything that pods and containers of a daemon leave traces of, one line for each thing. Images don't count. */
export async function footprint(daemon: BerthDaemon): Promise<Set<string>> {
  return new Set([
    ...processesOf(daemon).map(({ pid, command }) => `process ${pid}: ${command}`),
    ...mountsOf(daemon).map(path => `mount ${path}`),
    ...cgroupsOf(daemon).map(path => `cgroup ${path}`),
    ...filesOf(daemon).map(path => `file ${path}`),
    ...rowsOf(daemon),
    ...addressesOf(daemon).map(address => `address ${address}`),
    ...(await linksOf(daemon)).map(link => `link ${link}`),
    ...(await rulesOfPods()).map(rule => `rule ${rule}`),
  ])
}

/** Takes away by force what keeps the daemon's directories busy. The daemon itself has ended. */
export async function destroy(daemon: BerthDaemon): Promise<void> {
  await until('all processes are dead', () => {
    const left = processesOf(daemon)
    for (const { pid } of left) killProcess(pid)
    return left.length === 0
  })
  for (const path of mountsOf(daemon).reverse()) umount(path, MNT_DETACH)
  await until('all cgroups are gone', () => {
    for (const path of cgroupsOf(daemon).reverse()) removeGroup(path)
    return cgroupsOf(daemon).length === 0
  })
}

/** Removes a cgroup below the daemon's, from every hierarchy, as kubelet does when a pod is gone. */
export function removePodCgroup(path: string): void {
  for (const group of globSync(`/sys/fs/cgroup/{,*/}${path.slice(1)}`)) removeGroup(group)
}

function removeGroup(path: string): void {
  try {
    rmdirSync(path)
  } catch {
    // Busy: the caller looks again and says so if it stays.
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

type Process = { readonly pid: number; readonly command: string }

/** Processes in the daemon's cgroups, and those whose command line names its run directory; not the daemon itself. */
function processesOf({ cgroup, runRoot, socket }: BerthDaemon): Process[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name))
  return pids.flatMap(pid => {
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()
    if (command.includes(`--runroot=${runRoot}`) || command.includes(socket)) return [] // the daemon, its clients
    const ours = command.includes(runRoot) || read(`/proc/${pid}/cgroup`).includes(`${cgroup}/`)
    return ours && !isDead(pid)
      ? [{ pid: Number(pid), command: command || read(`/proc/${pid}/comm`).trim() }]
      : []
  })
}

function isDead(pid: string): boolean {
  const state = /\) (\S)/.exec(read(`/proc/${pid}/stat`))?.[1]
  return state === undefined || state === 'Z' || state === 'X'
}

function mountsOf({ directory, runRoot }: BerthDaemon): string[] {
  return read('/proc/self/mountinfo')
    .split('\n')
    .map(line => line.split(' ')[4] ?? '')
    .filter(path => path.startsWith(`${directory}/`) || path.startsWith(`${runRoot}/`))
}

function cgroupsOf({ cgroup }: BerthDaemon): string[] {
  const tops = globSync(`/sys/fs/cgroup/{,*/}${cgroup.slice(1)}`)
  return tops.flatMap(top => [top, ...directoriesBelow(top)])
}

function directoriesBelow(path: string): string[] {
  return entries(path).flatMap(name => {
    const child = join(path, name)
    return isDirectory(child) ? [child, ...directoriesBelow(child)] : []
  })
}

/** Names two levels deep: everything of a pod or container has its id there. Layers belong to images. */
function filesOf({ root, runRoot }: BerthDaemon): string[] {
  return [root, runRoot]
    .flatMap(top =>
      entries(top)
        .filter(name => !/^berth\.(db.*|lock)$/.test(name))
        .flatMap(name => [
          join(top, name),
          ...entries(join(top, name)).flatMap(child => [
            join(top, name, child),
            ...entries(join(top, name, child)).map(grandchild => join(top, name, child, grandchild)),
          ]),
        ]),
    )
    .filter(path => !/\/(layers|records)(\/|$)/.test(path))
}

function rowsOf({ root }: BerthDaemon): string[] {
  const path = join(root, 'berth.db')
  if (!existsSync(path)) return []
  const database = new Database(path, { readonly: true })
  try {
    const rows = (sql: string) => database.prepare(sql).pluck().all().map(String)
    return [
      ...rows('SELECT phase || id FROM pods').map(row => `pod row ${row}`),
      ...rows('SELECT phase || id FROM containers').map(row => `container row ${row}`),
      ...rows('SELECT container_id || chain_id FROM container_layers').map(row => `hold on a layer ${row}`),
      ...rows(`SELECT chain_id FROM layers WHERE phase <> 'committed'`).map(row => `unfinished layer ${row}`),
    ]
  } finally {
    database.close()
  }
}

function addressesOf({ ipamDir }: BerthDaemon): string[] {
  return entries(ipamDir).flatMap(network => entries(join(ipamDir, network)).filter(isIPv4))
}

async function linksOf({ bridge }: BerthDaemon): Promise<string[]> {
  const links = (await output('ip', '-o', 'link')).match(/^\d+: [^:@]+/gm) ?? []
  return links.map(link => link.split(' ')[1]!).filter(name => name !== 'lo' && name !== bridge)
}

/** Of single pods; the chains that the plugins share stay. */
async function rulesOfPods(): Promise<string[]> {
  return (await output('iptables-save')).match(/^.*CNI-(DN-)?[0-9a-f]{20}.*$/gm) ?? []
}

function entries(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
