import { readdirSync, readFileSync } from 'node:fs'

/** Processes of this pid namespace whose command line `matches`, arguments separated by spaces. */
export function findProcesses(matches: (commandLine: string) => boolean): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => matches(readProc(pid, 'cmdline').replaceAll('\0', ' ')))
}

/** Resident memory of one process, MiB. */
export function residentMiB(pid: number): number {
  return field(readProc(pid, 'status'), 'VmRSS') / 1024
}

/** Memory of processes with shared pages divided among those who share them, MiB. */
export function proportionalMiB(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + field(readProc(pid, 'smaps_rollup'), 'Pss'), 0) / 1024
}

// USER_HZ, which is 100 on every architecture that Debian supports.
const TICK_MS = 10

/** CPU time of the process itself, all its threads, without its children: ms. */
export function cpuMs(pid: number): number {
  const text = readProc(pid, 'stat')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

type Stat = { readonly pid: number; readonly parent: number; readonly cpuMs: number }

/** A process and all that descend from it: with the time of those that have ended and were waited for. */
export function treeOf(root: number): Stat[] {
  const all = findProcesses(() => true).map(statOf)
  const tree = all.filter(({ pid }) => pid === root)
  for (const { pid } of tree) tree.push(...all.filter(({ parent }) => parent === pid))
  return tree
}

export function treeCpuMs(root: number): number {
  return treeOf(root).reduce((sum, { cpuMs }) => sum + cpuMs, 0)
}

function statOf(pid: number): Stat {
  const text = readProc(pid, 'stat')
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  const ticks = fields.slice(11, 15).reduce((sum, count) => sum + count, 0)
  return { pid, parent: fields[1] ?? 0, cpuMs: ticks * TICK_MS }
}

/** `Name:  123 kB` */
function field(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
}

/** '' if the process is gone. */
function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}
