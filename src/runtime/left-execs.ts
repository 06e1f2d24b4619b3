import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import type { Cgroups } from '../os/cgroup/cgroup.ts'
import { removeTree } from '../os/files.ts'
import { leadsSession, processesWithArguments, processRef } from '../os/processes.ts'
import { EXEC_FILES, readPid } from './exec.ts'
import { killTree } from './process-tree.ts'

/**
 * Ends what a daemon that died has left running in a container: nobody holds its streams any more.
 * @param directory that was given to `exec`; removed when nothing of it is left
 */
export async function killLeftExec(directory: string, cgroups: Pick<Cgroups, 'pids'>): Promise<void> {
  // A runtime that is still at work first: it leaves the pid when it ends, and its process to us before.
  for (const runtime of runtimesAt(directory)) await killTree(runtime)
  const left = leftProcess(directory, cgroups)
  if (left !== undefined) await killTree(left)
  await removeTree(directory)
}

/** What of such a command runs: its process, or a runtime that is about to start it. */
export function findLeftExec(directory: string, cgroups: Pick<Cgroups, 'pids'>): ProcessRef[] {
  const left = leftProcess(directory, cgroups)
  return left === undefined ? runtimesAt(directory) : [left]
}

function runtimesAt(directory: string): ProcessRef[] {
  return processesWithArguments(join(directory, EXEC_FILES.process))
}

/** The pid may be another's by now. Where the daemon died before it wrote down which process it is, the pid alone tells. */
function leftProcess(directory: string, cgroups: Pick<Cgroups, 'pids'>): ProcessRef | undefined {
  const pid = readPid(directory)
  const ref = pid === undefined ? undefined : processRef(pid)
  if (ref === undefined || !leadsSession(ref)) return undefined
  const startTime = textOf(join(directory, EXEC_FILES.startTime))
  if (startTime !== undefined && startTime !== ref.startTime) return undefined
  const cgroup = textOf(join(directory, EXEC_FILES.cgroup))
  return cgroup !== undefined && cgroups.pids(cgroup).includes(ref.pid) ? ref : undefined
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
