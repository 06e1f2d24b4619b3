import { precondition } from '../base/errors.ts'
import type { OciResources } from '../model/oci.ts'
import type { LinuxResources } from '../model/security.ts'
import { requireContainer } from './container-state.ts'
import { type ContainerContext, runtimeOf, stepOf } from './context.ts'
import { updateFailure } from './runtime-errors.ts'
import { checkResources, mergeResources, toOciResources } from './spec/resources.ts'

/** UpdateContainerResources: cgroup and row together, or neither. Zero and empty fields stay as they are. */
export async function updateContainer(
  context: ContainerContext,
  idOrPrefix: string,
  update: LinuxResources,
): Promise<void> {
  const { id } = requireContainer(context.catalog, idOrPrefix)
  await context.locks.run(id, async () => {
    const container = requireContainer(context.catalog, id)
    if (container.phase !== 'created' && container.phase !== 'running') {
      throw precondition(`container ${id} is ${container.phase}; only a created or running one has resources`)
    }
    const runtime = runtimeOf(context, container)
    const resources = mergeResources(container.resources, update)
    checkResources('linux', resources, context.host)
    // Runtimes take hugepages when a container is made, and no more.
    const { hugepageLimits, ...limits } = toOciResources(update, context.host)
    try {
      await context.timeline.step(
        stepOf(container, 'UpdateContainerResources'),
        'runtime-update',
        async () => {
          await runtime.update(id, limits)
          const rest = {
            ...(hugepageLimits === undefined ? {} : { hugepageLimits }),
            ...oomGroupOf(resources),
          }
          if (Object.keys(rest).length > 0) await context.cgroups.writeLimits(container.cgroup, rest)
        },
      )
    } catch (error) {
      throw updateFailure(error, update.unified)
    }
    context.catalog.updateContainer(id, { resources })
  })
}

/** systemd has no property for it, and sets it to 0 whenever it writes a scope's memory limits. */
function oomGroupOf({ unified }: LinuxResources): Pick<OciResources, 'unified'> {
  const group = unified['memory.oom.group']
  return group === undefined ? {} : { unified: { 'memory.oom.group': group } }
}

/** ReopenContainerLog: when it returns the new file exists and the old one is no longer written. */
export async function reopenLog(
  context: ContainerContext,
  paths: { bundle: string; persist: string },
  id: string,
): Promise<void> {
  const container = requireContainer(context.catalog, id)
  if (container.phase !== 'running')
    throw precondition(`container ${id} is ${container.phase}; nothing writes its log`)
  await context.timeline.step(stepOf(container, 'ReopenContainerLog'), 'reopen-log', () =>
    runtimeOf(context, container).reopenLog(paths, container.logPath),
  )
}
