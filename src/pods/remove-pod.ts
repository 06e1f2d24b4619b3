import type { Pod } from '../model/pod.ts'
import { removeTree } from '../os/files.ts'
import { type PodContext, stepOf } from './context.ts'
import { releasePod, stopPod } from './stop-pod.ts'

/** RemovePodSandbox: stops what runs, removes its containers, then itself. An unknown id is removed already. */
export async function removePod(context: PodContext, id: string): Promise<void> {
  if (context.catalog.pod(id) === undefined) return
  await stopPod(context, id)
  await Promise.all(
    context.catalog.containersOf(id).map(container => context.containers.remove(container.id)),
  )
  await context.locks.run(id, async () => {
    const pod = context.catalog.updatePod(id, { phase: 'removing' })
    if (pod === undefined) return
    await context.timeline.step(stepOf(pod, 'RemovePodSandbox'), 'remove', () => undoPod(context, pod))
    const last = context.events.podStatus(id)
    context.catalog.deletePod(id)
    if (last !== undefined) context.events.emitDeletedPod(last)
  })
}

/**
 * Takes away everything a pod's id stands for, whatever of it there is: the end of removal, the recovery of a pod
 * that never came up, and of a removal that was cut short. The row is the caller's to delete.
 */
export async function undoPod(context: PodContext, pod: Pod): Promise<void> {
  await releasePod(context, pod, 'RemovePodSandbox')
  await removeTree(context.paths.persist(pod.id))
  await removeTree(context.paths.pod(pod.id).directory)
  // A parent that the client named is the client's to remove.
  if (pod.config.cgroupParent === '') await context.cgroups.remove(pod.cgroup)
}
