import { inStep } from '../base/errors.ts'
import { monitorCgroup } from '../containers/context.ts'
import type { Pod } from '../model/pod.ts'
import { unmount } from '../os/mounts.ts'
import { hasNetwork, type PodContext, stepOf, targetOf } from './context.ts'
import { initCgroup } from './pod-init.ts'

/**
 * StopPodSandbox: not ready, at once and for good; then its containers are killed, its network given back, its
 * namespaces and shared memory let go. Every step may have been done before; an unknown id is stopped already.
 */
export async function stopPod(context: PodContext, id: string): Promise<void> {
  const pod = context.catalog.pod(id)
  if (pod === undefined) return
  if (pod.phase === 'ready') {
    context.catalog.updatePod(id, { phase: 'notready' })
    context.events.emit('stopped', id, id)
  }
  await context.timeline.step(stepOf(pod, 'StopPodSandbox'), 'stop-containers', () =>
    stopContainers(context, pod),
  )
  await context.locks.run(id, async () => {
    const current = context.catalog.pod(id)
    if (current !== undefined) await releasePod(context, current, 'StopPodSandbox')
  })
}

/** kubelet gave its containers their time before it stopped the pod. */
async function stopContainers(context: PodContext, pod: Pod): Promise<void> {
  const stops = context.catalog.containersOf(pod.id).map(({ id }) => context.containers.stop(id, 0))
  const failed = (await Promise.allSettled(stops)).find(result => result.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

/** Lets go of everything a pod holds outside its directory. The row tells what is left after a crash. */
export async function releasePod(context: PodContext, pod: Pod, operation: string): Promise<void> {
  const { timeline, network, networkSlots, pins, catalog } = context
  const paths = context.paths.pod(pod.id)
  const at = stepOf(pod, operation)
  if (pod.config.namespaces.pid === 'pod') {
    await timeline.step(at, 'remove-init', () => removeInit(context, pod))
  }
  if (hasNetwork(pod) && pod.networkHeld) {
    // Without its namespace the kernel takes the veth away by itself, which is seven times quicker.
    const namespaceFirst =
      pod.network.attachment !== undefined && network.canDetachWithoutNamespace(pod.network)
    if (namespaceFirst) pins.remove(paths.namespaces)
    await timeline.step(at, 'cni-del', async () => {
      try {
        await networkSlots.run(() =>
          network.detach(targetOf(context, pod, !namespaceFirst), pod.network.attachment && pod.network),
        )
      } catch (error) {
        throw inStep('the network of the pod could not be given back', error)
      }
    })
    catalog.updatePod(pod.id, { networkHeld: false })
  }
  pins.remove(paths.namespaces)
  unmount(paths.shm, { detach: true })
}

async function removeInit(context: PodContext, pod: Pod): Promise<void> {
  const runtime = context.handlers.getOrDefault(pod.runtimeHandler)
  const paths = { bundle: context.paths.bundle(pod.id), persist: context.paths.persist(pod.id) }
  await context.heavy.run(() => runtime.remove(pod.id, paths))
  await context.cgroups.kill(initCgroup(pod))
  await context.cgroups.remove(initCgroup(pod))
  const monitor = monitorCgroup(context, pod, pod.id)
  if (monitor !== undefined) await context.cgroups.remove(monitor)
}
