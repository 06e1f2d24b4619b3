import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Container } from '../model/container.ts'
import type { Busy, Difference } from '../model/difference.ts'
import type { ProcessRef } from '../model/pod.ts'
import { ensureDir, namesIn } from '../os/files.ts'
import { mountsBelow, unmountAll } from '../os/mounts.ts'
import type { NamespacePins } from '../os/namespaces.ts'
import { bootId } from '../os/node.ts'
import { isAlive } from '../os/processes.ts'
import { BUNDLE_FILES } from '../runtime/bundle-files.ts'
import { findLeftExec, killLeftExec } from '../runtime/left-execs.ts'
import { killTree } from '../runtime/process-tree.ts'
import { restoreBundle, restoreLink } from '../runtime/restore-bundle.ts'
import { applyCdiEdits } from './cdi/apply-edits.ts'
import { findCdiEdits } from './cdi/find-devices.ts'
import { labelsOf, requireImages, specOf } from './container-spec.ts'
import { type ContainerContext, monitorCgroup, pathsOf, runtimeOf } from './context.ts'
import type { Exits } from './exits.ts'
import { recoverContainer } from './recover-containers.ts'
import { monitorsOf, strayContainers } from './strays.ts'

export type ContainerLook = {
  readonly context: ContainerContext
  readonly exits: Exits
  readonly pins: NamespacePins
  /** The cgroup of pods whose client names none. */
  readonly podParent: string
  /** The daemon is the one who looks: what a daemon does by itself at its next start is not left to be done. */
  readonly isServing: boolean
}

/** What is seen once for all containers. */
type Seen = ContainerLook & {
  readonly mounts: ReadonlySet<string>
  readonly monitors: ReadonlyMap<string, ProcessRef>
  /** Ids that runtimes know, by handler. */
  readonly states: ReadonlyMap<string, ReadonlySet<string>>
}

/** Rows of containers against processes, runtime state, bundles, cgroups and mounts, and all these against the rows. */
export async function containerDifferences(look: ContainerLook, busy: Busy): Promise<Difference[]> {
  const { context } = look
  const states = await Promise.all(
    context.handlers.all().map(async one => [one.handler, new Set(await one.list())] as const),
  )
  const seen: Seen = {
    ...look,
    mounts: new Set(mountsBelow(context.paths.root).map(({ mountPoint }) => mountPoint)),
    monitors: new Map(monitorsOf(context).map(({ id, process }) => [id, process])),
    states: new Map(states),
  }
  const known = [...context.catalog.containers()].flatMap(container => {
    if (context.locks.isHeld(container.id)) {
      busy.add(`container ${container.id}`)
      return []
    }
    return differencesOf(seen, container).map(difference => ({ ...of(container), ...difference }))
  })
  return [
    ...known,
    ...(await strayContainers(context, look.podParent)),
    ...unknownMounts(seen),
    ...leftExecs(seen),
    ...unreadableRows(context),
  ]
}

type Finding = Omit<Difference, 'subject'> & { readonly subject?: string }

function of(container: Container) {
  return { subject: container.id, podId: container.podId, containerId: container.id, row: container }
}

function differencesOf(seen: Seen, container: Container): Finding[] {
  switch (container.phase) {
    case 'creating':
    case 'removing':
      return [unfinished(seen, container)]
    case 'exited':
      return notCleared(seen, container)
    case 'created':
    case 'running':
    case 'unknown':
      return living(seen, container)
  }
}

function unfinished({ context, exits, isServing }: Seen, container: Container): Finding {
  const verb = container.phase === 'creating' ? 'created' : 'removed'
  return {
    kind: 'container-unfinished',
    found: `its row says that it is being ${verb}, and nobody is at it`,
    cause: isServing
      ? 'an operation failed, and what it had done could not be undone: the log of the daemon says why'
      : `the daemon ended while the container was being ${verb}`,
    remedy: 'take away everything that its id stands for, then its row, as the next start of the daemon does',
    fix: () =>
      context.locks.run(container.id, async () => {
        const now = context.catalog.container(container.id)
        if (now?.phase === 'creating' || now?.phase === 'removing')
          await recoverContainer(context, exits, now)
      }),
  }
}

function notCleared(seen: Seen, container: Container): Finding[] {
  const { context, exits } = seen
  const left = leftOf(seen, container)
  if (left.length === 0) return []
  return [
    {
      kind: 'container-not-cleared',
      found: `it has exited, and there is still: ${left.join(', ')}`,
      cause:
        'what an exited container holds could not be let go of (the log of the daemon says why), or somebody made it since',
      remedy: 'kill what is left of its processes, and remove these; its logs and its writable layer stay',
      fix: () =>
        context.locks.run(container.id, async () => {
          const now = context.catalog.container(container.id)
          if (now?.phase !== 'exited') return
          const monitor = seen.monitors.get(container.id)
          await exits.clear(now)
          if (monitor !== undefined) await killTree(monitor)
        }),
    },
  ]
}

function leftOf({ context, mounts, monitors, states }: Seen, container: Container): string[] {
  const { bundle } = pathsOf(context, container.id)
  const pod = context.catalog.pod(container.podId)
  const monitorGroup = pod && monitorCgroup(context, pod, container.id)
  const groups = [container.cgroup, ...(monitorGroup === undefined ? [] : [monitorGroup])]
  const monitor = monitors.get(container.id)
  const handlers = [...states].filter(([, ids]) => ids.has(container.id)).map(([handler]) => handler)
  const home = dirname(context.snapshots.rootfsPath(container.id))
  return [
    ...(existsSync(bundle) ? [bundle] : []),
    ...handlers.map(handler => `state of ${handler}`),
    ...(monitor === undefined ? [] : [`its monitor with pid ${monitor.pid}`]),
    ...groups.filter(path => context.cgroups.exists(path)).map(path => `cgroup ${path}`),
    ...[...mounts].filter(path => path.startsWith(`${home}/`)).map(path => `mount ${path}`),
  ]
}

/** Of one that should have a process. */
function living(seen: Seen, container: Container): Finding[] {
  const { context, exits, isServing } = seen
  if (context.catalog.pod(container.podId)?.bootId !== bootId()) {
    return [
      {
        kind: 'container-ended',
        found: `its row says ${container.phase}, and its process is of an earlier boot`,
        cause: 'the node was restarted',
        remedy: 'record that it has exited, as the next start of the daemon does',
        fix: () =>
          context.locks.run(container.id, async () => {
            const now = context.catalog.container(container.id)
            if (now?.phase === container.phase) await recoverContainer(context, exits, now)
          }),
      },
    ]
  }
  const { init } = container
  if (init === undefined || !isAlive(init)) {
    return [
      {
        kind: 'container-ended',
        found: `its row says ${container.phase}, and its process${init === undefined ? '' : ` (pid ${init.pid})`} has ended`,
        cause: isServing ? 'its end was not noticed' : 'it ended while no daemon ran',
        remedy: 'record its exit and clear what it leaves, as a daemon does',
        fix: () => exits.settle(container.id),
      },
    ]
  }
  return [
    ...monitorProblems(container, init),
    ...bundleProblems(seen, container, init),
    ...stateProblems(seen, container),
    ...rootProblems(seen, container, init),
  ]
}

function monitorProblems({ monitor }: Container, init: ProcessRef): Finding[] {
  if (monitor === undefined || isAlive(monitor)) return []
  return [
    {
      kind: 'monitor-gone',
      found: `it runs (pid ${init.pid}), and its monitor (pid ${monitor.pid}) is gone`,
      cause: 'conmon was killed or crashed: by hand, or by the kernel for lack of memory',
      remedy:
        'nothing that leaves it running: its log has stopped and its exit code will be unknown; stop it, and kubelet starts another',
    },
  ]
}

function bundleProblems({ context }: Seen, container: Container, init: ProcessRef): Finding[] {
  const { bundle, persist } = pathsOf(context, container.id)
  const link = join(context.paths.sockets, container.id)
  const { spec, processes } = BUNDLE_FILES
  const missing = [join(bundle, spec), join(bundle, processes), persist].filter(path => !existsSync(path))
  const isLinked = namesIn(context.paths.sockets).includes(container.id)
  if (!isLinked) missing.push(link)
  if (missing.length === 0) return []
  const sockets = existsSync(join(bundle, 'ctl'))
    ? ''
    : '; attaching to it and rotating its log will not work until it is replaced, since its monitor listens there no more'
  return [
    {
      kind: 'bundle-missing',
      found: `it runs (pid ${init.pid}), and these files of its are missing: ${missing.join(', ')}`,
      cause: 'somebody, or a cleaner of temporary files, removed them',
      remedy: `write them again from its row and its image; its processes do not notice${sockets}`,
      fix: () =>
        context.locks.run(container.id, async () => {
          ensureDir(persist, 0o700)
          if (missing.some(path => path.startsWith(`${bundle}/`))) await rewriteBundle(context, container)
          if (!namesIn(context.paths.sockets).includes(container.id)) restoreLink(link, bundle)
        }),
    },
  ]
}

/** What it was created with, as it would be today. */
async function rewriteBundle(context: ContainerContext, container: Container): Promise<void> {
  const pod = context.catalog.pod(container.podId)
  const { init, monitor } = container
  if (pod === undefined || init === undefined || monitor === undefined) return
  const images = requireImages(context, container)
  const edits = await findCdiEdits(container.config, context.cdiSpecDirs)
  const labels = labelsOf(context, pod, container)
  const { spec } = specOf(context, pod, container, images, runtimeOf(context, container), labels)
  restoreBundle(pathsOf(context, container.id).bundle, applyCdiEdits(spec, edits), { init, monitor })
}

function stateProblems({ context, states }: Seen, container: Container): Finding[] {
  const { handler } = runtimeOf(context, container)
  const knows = states.get(handler)?.has(container.id) === true
  return [
    ...(knows
      ? []
      : [
          {
            kind: 'runtime-state-missing' as const,
            found: `it runs, and ${handler} does not know it any more`,
            cause: `somebody, or a cleaner of temporary files, removed the state directory of ${handler}`,
            remedy:
              'nothing that leaves it running: commands in it and updates fail; stop it, and kubelet starts another',
          },
        ]),
    ...(context.cgroups.pids(container.cgroup).includes(container.init?.pid ?? 0)
      ? []
      : [
          {
            kind: 'cgroup-left' as const,
            found: `its process (pid ${container.init?.pid}) is not in its cgroup ${container.cgroup}`,
            cause: 'somebody else moved it: two managers of cgroups are at work on this node',
            remedy:
              'nothing that leaves it running: its limits do not hold; compare cgroup_manager with cgroupDriver of kubelet, then stop it',
          },
        ]),
  ]
}

function rootProblems({ context, mounts, pins }: Seen, container: Container, init: ProcessRef): Finding[] {
  const { snapshots } = context
  const root = snapshots.rootfsPath(container.id)
  const upper = snapshots.upperPath(container.id)
  return [
    ...(existsSync(upper)
      ? []
      : [
          {
            kind: 'writable-layer-missing' as const,
            found: `it runs, and its writable layer ${upper} is missing`,
            cause: 'somebody removed it',
            remedy: 'nothing: what it wrote is lost when it ends; stop it, and kubelet starts another',
          },
        ]),
    ...(mounts.has(root)
      ? []
      : [
          {
            kind: 'root-unmounted' as const,
            found: `it runs, and its root is not mounted at ${root} any more`,
            cause: 'somebody unmounted it; the container has the mount still, in its own namespace',
            remedy: "mount it there again, from the container's namespace; its processes do not notice",
            fix: () =>
              context.locks.run(container.id, async () => {
                if (!isAlive(init)) return
                ensureDir(root, 0o700)
                await pins.mountRootOf(init.pid, root)
              }),
          },
        ]),
  ]
}

/** Mounts where only containers have some, of no container or not its own. */
function unknownMounts({ context, mounts }: Seen): Difference[] {
  const { snapshots, paths } = context
  const all = dirname(dirname(snapshots.rootfsPath('x')))
  return [...mounts, ...mountsBelow(paths.bundles).map(({ mountPoint }) => mountPoint)].flatMap(point => {
    const parent = [all, paths.bundles].find(directory => point.startsWith(`${directory}/`))
    const id = parent && point.slice(parent.length + 1).split('/', 1)[0]
    const container = id === undefined ? undefined : context.catalog.container(id)
    // Of others all is a trace of a stray, or of what has not been cleared.
    if (container === undefined || !isLiving(container) || context.locks.isHeld(container.id)) return []
    const isExpected =
      point === snapshots.rootfsPath(container.id) ||
      (basename(dirname(point)) === 'views' && dirname(dirname(point)) === join(all, container.id))
    if (isExpected) return []
    return [
      {
        ...of(container),
        kind: 'mount-unknown' as const,
        subject: point,
        found: 'something is mounted here that is not of the container',
        cause: 'somebody mounted it by hand',
        remedy: 'unmount it: it would be in the way when the container is removed',
        fix: async () => unmountAll(point),
      },
    ]
  })
}

function isLiving({ phase }: Container): boolean {
  return phase === 'created' || phase === 'running'
}

function leftExecs({ context, isServing }: Seen): Difference[] {
  const { paths, cgroups, handlers } = context
  const used = new Set(handlers.all().flatMap(runtime => runtime.execDirectories()))
  return namesIn(paths.execs).flatMap(name => {
    const directory = join(paths.execs, name)
    if (used.has(directory)) return []
    const pids = findLeftExec(directory, cgroups).map(({ pid }) => pid)
    return [
      {
        kind: 'exec-left' as const,
        subject: directory,
        found:
          pids.length === 0
            ? 'the directory of a command in a container that runs no more'
            : `a command in a container that nobody waits for any more: pid ${pids.join(', ')}`,
        cause: isServing
          ? 'it could not be ended when the daemon started'
          : 'the daemon was killed while the command ran',
        remedy: 'kill it, as the next start of the daemon does; its container goes on',
        fix: () => killLeftExec(directory, cgroups),
      },
    ]
  })
}

/** Rows that only tell what their columns tell. */
function unreadableRows({ catalog }: ContainerContext): Difference[] {
  return catalog.unreadable
    .filter(({ id }) => catalog.pod(id) !== undefined || catalog.container(id) !== undefined)
    .map(({ id, error }) => ({
      kind: 'row-unreadable' as const,
      subject: id,
      found: `its row cannot be read in full: ${error}`,
      cause: 'the database was damaged or changed by hand',
      remedy:
        'nothing: stop and remove it (crictl stopp, rmp, stop, rm), which works without the rest of the row',
    }))
}
