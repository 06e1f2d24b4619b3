import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { nowNs } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Container, ContainerExit } from '../model/container.ts'
import { namesIn } from '../os/files.ts'
import { bootId } from '../os/node.ts'
import { isAlive } from '../os/processes.ts'
import { killLeftExec } from '../runtime/left-execs.ts'
import type { LeftCommand } from '../runtime/runtime.ts'
import { type ContainerContext, pathsOf, runtimeOf } from './context.ts'
import { type Exits, readExit } from './exits.ts'
import { undoContainer, undoLater } from './remove-container.ts'
import { blockedBy, findStrays, removeStray } from './strays.ts'

/** Containers looked at side by side: most need a file or two, some a runtime call. */
const PARALLEL = 8

const NODE_REBOOT_CODE = 255

/**
 * Makes rows and kernel agree after a start: ends commands whose client is gone with the last daemon, undoes creates that never ended, finishes removals, follows what lives,
 * records what ended meanwhile. One container that cannot be recovered becomes `unknown` and stops nobody else.
 */
export async function recoverContainers(context: ContainerContext, exits: Exits): Promise<void> {
  await killLeftExecs(context)
  const starts = new Map(context.handlers.all().flatMap(runtime => [...runtime.leftStarts()]))
  const slots = new Semaphore('recovery', PARALLEL)
  const all = [...context.catalog.containers()]
  await Promise.all(
    all.map(container =>
      slots.run(async () => {
        try {
          await recoverContainer(context, exits, container, starts.get(container.id))
        } catch (error) {
          context.log.error(
            { containerId: container.id, podId: container.podId, error: messageOf(error) },
            'a container could not be recovered; stopping and removing it still works',
          )
          // A row that undoes or removes keeps its phase: that is what has to be done again.
          if (LIVING.has(container.phase)) {
            recoverLater(context, exits, container.id)
          } else undoLater(context, container.id)
        }
      }),
    ),
  )
}

/** Commands whose clients are gone with the last daemon. One that cannot be ended goes with its container. */
async function killLeftExecs({ paths, cgroups, log }: ContainerContext): Promise<void> {
  for (const name of namesIn(paths.execs)) {
    try {
      await killLeftExec(join(paths.execs, name), cgroups)
    } catch (error) {
      log.warn({ exec: name, error: messageOf(error) }, 'a command of the last daemon could not be ended')
    }
  }
}

/** Makes the row and the kernel agree about one container, as after a start. */
export async function recoverContainer(
  context: ContainerContext,
  exits: Exits,
  container: Container,
  start?: LeftCommand,
): Promise<void> {
  switch (container.phase) {
    case 'creating':
    case 'removing':
      await undoContainer(context, container)
      context.catalog.deleteContainer(container.id)
      return
    case 'exited':
      if (existsSync(pathsOf(context, container.id).bundle)) await exits.clear(container)
      return
    case 'created':
    case 'running':
    case 'unknown':
      if (context.catalog.pod(container.podId)?.bootId !== bootId())
        await recordReboot(context, exits, container)
      else if (start === undefined)
        await context.locks.run(container.id, () => adopt(context, exits, container.id))
      else void adoptStarted(context, exits, container, start)
  }
}

/** Nothing of it can be alive; the monitor may have left its exit on disk before the node went down. */
async function recordReboot(context: ContainerContext, exits: Exits, container: Container): Promise<void> {
  const { record } = readExit(context, container)
  const rebooted: ContainerExit = {
    code: NODE_REBOOT_CODE,
    reason: 'NodeReboot',
    message: 'the node was restarted',
    finishedAt: nowNs(),
  }
  await exits.record(container, record === undefined ? rebooted : await exits.exitOf(container, record))
}

/**
 * The start that the last daemon was killed in goes on by itself and may take as long as any: nobody else is kept
 * waiting, but whoever wants to start, stop or remove this container is.
 */
async function adoptStarted(
  context: ContainerContext,
  exits: Exits,
  { id, podId }: Container,
  start: LeftCommand,
): Promise<void> {
  try {
    await context.locks.run(id, async () => {
      await start.ended()
      await adopt(context, exits, id)
    })
  } catch (error) {
    context.log.error({ containerId: id, podId, error: messageOf(error) }, 'a start could not be waited for')
    recoverLater(context, exits, id)
  }
}

/** Until then its state is unknown. */
function recoverLater(context: ContainerContext, exits: Exits, id: string): void {
  context.catalog.updateContainer(id, { phase: 'unknown' })
  context.retries.later(`recovering container ${id}`, () =>
    context.locks.run(id, () => adopt(context, exits, id)),
  )
}

const LIVING: ReadonlySet<Container['phase']> = new Set(['created', 'running', 'unknown'])

/** The caller holds the container's lock. */
async function adopt(context: ContainerContext, exits: Exits, id: string): Promise<void> {
  const container = context.catalog.container(id)
  // Stopped, removed or ended, where this comes late.
  if (container === undefined || !LIVING.has(container.phase)) return
  exits.follow(await withKnownPhase(context, container))
  await exits.settleLocked(id)
}

/** The daemon may have died between the start and its record; an earlier one may not have learnt what it was. */
async function withKnownPhase(context: ContainerContext, container: Container): Promise<Container> {
  const { id, podId, init, phase, startedAt } = container
  if (phase === 'running' || init === undefined || !isAlive(init)) return container
  const status = (await runtimeOf(context, container).state(id))?.status
  if (status === 'running' || status === 'paused') {
    const started = { phase: 'running', startedAt: startedAt > 0n ? startedAt : nowNs() } as const
    const updated = context.catalog.updateContainer(id, started) ?? container
    if (startedAt === 0n) context.events.emit('started', podId, id)
    return updated
  }
  if (status === 'created' && phase === 'unknown') {
    return context.catalog.updateContainer(id, { phase: 'created' }) ?? container
  }
  return container
}

/**
 * Removes what belongs to no row: bundles, runtime state, writable layers and exit records of containers that the
 * database never heard of, or of one that was put back from a backup. One that cannot be removed stops nobody else.
 */
export async function sweepContainers(context: ContainerContext, podParent: string): Promise<void> {
  const { log } = context
  for (const stray of await findStrays(context, podParent)) {
    const fields = { containerId: stray.id, traces: stray.traces }
    // What cgroups alone tell of is left to the operator, who knows whether this is the only daemon here.
    if (stray.traces.length === stray.cgroups.length || blockedBy(context, stray) !== undefined) continue
    log.warn(fields, 'removing a container that has no record')
    try {
      await removeStray(context, stray)
    } catch (error) {
      log.error({ ...fields, error: messageOf(error) }, 'a container that has no record could not be removed')
    }
  }
}
