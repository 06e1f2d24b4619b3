import { rmSync } from 'node:fs'
import { posix } from 'node:path'
import { isId } from '../base/ids.ts'
import type { Difference } from '../model/difference.ts'
import type { ProcessRef } from '../model/pod.ts'
import { namesIn } from '../os/files.ts'
import { argumentsOf, processesWithArguments } from '../os/processes.ts'
import { killTree } from '../runtime/process-tree.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type ContainerContext, pathsOf } from './context.ts'

/** What there is of a container, or of a pod's init process, that no row knows. */
export type Stray = {
  readonly id: string
  /** One for each thing that was found. */
  readonly traces: readonly string[]
  /** Those that know the id. */
  readonly runtimes: readonly Runtime[]
  readonly monitors: readonly ProcessRef[]
  readonly cgroups: readonly string[]
}

type Traces = {
  readonly traces: string[]
  readonly runtimes: Runtime[]
  readonly monitors: ProcessRef[]
  readonly cgroups: string[]
}

/** `berth-ID`, `berth-conmon-ID`, with `.scope` under systemd. */
const GROUP = /^berth-(?:conmon-)?([0-9a-f]{64})(?:\.scope)?$/

/**
 * Everything that is named by the id of a container which the database never heard of: as after the loss of the
 * database, or with one that was put back from a backup.
 * @param podParent the cgroup of pods whose client names none
 */
export async function findStrays(context: ContainerContext, podParent: string): Promise<Stray[]> {
  const { catalog, paths, handlers, snapshots } = context
  const found = new Map<string, Traces>()
  const of = (id: string): Traces => {
    const traces = found.get(id) ?? { traces: [], runtimes: [], monitors: [], cgroups: [] }
    found.set(id, traces)
    return traces
  }
  for (const runtime of handlers.all()) {
    for (const id of await runtime.list()) {
      of(id).runtimes.push(runtime)
      of(id).traces.push(`state of ${runtime.handler}`)
    }
  }
  for (const id of namesIn(paths.bundles)) of(id).traces.push(paths.bundle(id))
  for (const { id, process } of monitorsOf(context)) {
    of(id).monitors.push(process)
    of(id).traces.push(`monitor with pid ${process.pid}`)
  }
  for (const { id, path } of groupsOf(context, podParent)) {
    of(id).cgroups.push(path)
    of(id).traces.push(`cgroup ${path}`)
  }
  for (const id of snapshots.listRootfs()) of(id).traces.push(posix.dirname(snapshots.rootfsPath(id)))
  for (const id of namesIn(paths.persistent)) of(id).traces.push(paths.persist(id))
  // The monitor writes `ID.XXXXXX` first.
  for (const name of namesIn(paths.exits)) of(name.split('.', 1)[0]!).traces.push(`${paths.exits}/${name}`)
  for (const id of namesIn(paths.sockets)) of(id).traces.push(`${paths.sockets}/${id}`)
  const isKnown = (id: string) => catalog.container(id) !== undefined || catalog.pod(id) !== undefined
  return [...found].filter(([id]) => isId(id) && !isKnown(id)).map(([id, traces]) => ({ id, ...traces }))
}

/** Monitors that this daemon, or one before it, started: the directory for their exit files is its own. */
export function monitorsOf({
  paths,
}: Pick<ContainerContext, 'paths'>): Array<{ readonly id: string; readonly process: ProcessRef }> {
  return processesWithArguments(paths.exits).flatMap(process => {
    const args = argumentsOf(process.pid)
    const id = args[args.indexOf('-c') + 1]
    // The runtime that it forks has other arguments.
    return args.includes('--exit-dir') && id !== undefined ? [{ id, process }] : []
  })
}

/** Groups of containers and monitors, where this node's pods have theirs. */
function groupsOf(
  { catalog, cgroups, handlerOptions }: ContainerContext,
  podParent: string,
): Array<{ readonly id: string; readonly path: string }> {
  const pods = [...catalog.pods()].map(pod => pod.cgroup)
  const parents = new Set([podParent, ...pods.map(path => posix.dirname(path))])
  parents.delete('/')
  const groups = new Set(pods)
  for (const parent of parents) {
    for (const name of cgroups.children(parent)) groups.add(`${parent}/${name}`)
  }
  const { monitorCgroup } = handlerOptions('')
  if (monitorCgroup.startsWith('/')) groups.add(monitorCgroup)
  return [...groups].flatMap(group =>
    cgroups.children(group).flatMap(name => {
      const id = GROUP.exec(name)?.[1]
      return id === undefined ? [] : [{ id, path: `${group}/${name}` }]
    }),
  )
}

/** Takes all of it away; what of it runs is killed. */
export async function removeStray(context: ContainerContext, stray: Stray): Promise<void> {
  const { handlers, cgroups } = context
  const runtimes = stray.runtimes.length > 0 ? stray.runtimes : [handlers.default]
  await removeTraces(context, stray.id, runtimes, async () => {
    for (const monitor of stray.monitors) await killTree(monitor)
    for (const path of stray.cgroups) {
      await cgroups.kill(path)
      await cgroups.remove(path)
    }
  })
}

/**
 * What every removal of a container consists of: its process and monitor, its cgroups, its root file system and
 * writable layer, what its monitor left.
 */
export async function removeTraces(
  context: ContainerContext,
  id: string,
  runtimes: readonly Runtime[],
  removeGroups: () => Promise<void>,
): Promise<void> {
  const paths = pathsOf(context, id)
  for (const runtime of runtimes) await context.heavy.run(() => runtime.remove(id, paths))
  await removeGroups()
  await context.snapshots.removeRootfs(id)
  rmSync(paths.persist, { recursive: true, force: true })
}

/**
 * Why it has to be left alone. One whose runtime is not there may still run, and is known to nobody else: a later look
 * finds it. What runs in a cgroup and has left nothing in this node's directories may be another daemon's.
 */
export function blockedBy(context: ContainerContext, stray: Stray): string | undefined {
  const problem = stray.runtimes.find(runtime => runtime.problem !== undefined)?.problem
  if (problem !== undefined) return `${problem}; install it first: nobody else knows what may still run`
  if (stray.traces.length > stray.cgroups.length) return undefined
  const pids = stray.cgroups.flatMap(path => context.cgroups.pids(path))
  if (pids.length === 0) return undefined
  return `its processes (${pids.slice(0, 10).join(', ')}) may belong to another daemon; if not, end them`
}

export async function strayContainers(context: ContainerContext, podParent: string): Promise<Difference[]> {
  const strays = await findStrays(context, podParent)
  return strays.map(stray => {
    const blocked = blockedBy(context, stray)
    return {
      kind: 'container-stray',
      subject: stray.id,
      containerId: stray.id,
      found: `there is no such container, but there is: ${stray.traces.join(', ')}`,
      cause:
        'the database was lost or put back from a backup, somebody made this by hand, or a daemon ended before it knew of it',
      ...(blocked === undefined
        ? { remedy: 'kill what runs of it, and remove all of it', fix: () => removeStray(context, stray) }
        : { remedy: blocked }),
    }
  })
}
