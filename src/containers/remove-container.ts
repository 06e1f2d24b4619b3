import type { Container } from '../model/container.ts'
import { type ContainerContext, removeCgroups, runtimeOf, stepOf } from './context.ts'
import type { Stops } from './stop-container.ts'
import { removeTraces } from './strays.ts'

/** RemoveContainer: kills it if it runs. An unknown id is removed already. Log files are the client's to delete. */
export async function removeContainer(
  context: ContainerContext,
  stops: Stops,
  idOrPrefix: string,
): Promise<void> {
  const found = context.catalog.findContainer(idOrPrefix)
  if (found === undefined) return
  // One under way is waited for; what a failed one could not undo is removed like everything else.
  if (found.phase !== 'exited' && found.phase !== 'removing') await stops.stop(found.id, 0)
  await context.locks.run(found.id, async () => {
    const container = context.catalog.updateContainer(found.id, { phase: 'removing' })
    if (container === undefined) return
    await context.timeline.step(stepOf(container, 'RemoveContainer'), 'remove', () =>
      undoContainer(context, container),
    )
    context.catalog.deleteContainer(container.id)
    context.events.emit('deleted', container.podId, container.id)
    context.images.collectSoon()
  })
}

/**
 * Takes away everything a container's id stands for, whatever of it there is: the second half of removal, the
 * recovery of a create that never ended, and of a removal that was cut short. The row is the caller's to delete.
 */
export async function undoContainer(context: ContainerContext, container: Container): Promise<void> {
  const runtime = runtimeOf(context, container)
  runtime.endExecs(container.id)
  await removeTraces(context, container.id, [runtime], () => removeCgroups(context, container))
}

/** For a row that says so, and whose undo has failed: again later, until nothing of it is left. */
export function undoLater(context: ContainerContext, id: string): void {
  context.retries.later(`clearing container ${id}`, () =>
    context.locks.run(id, async () => {
      const container = context.catalog.container(id)
      if (container?.phase !== 'creating' && container?.phase !== 'removing') return
      await undoContainer(context, container)
      context.catalog.deleteContainer(id)
    }),
  )
}
