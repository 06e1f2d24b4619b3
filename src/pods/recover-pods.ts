import { isCode, messageOf } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Pod } from '../model/pod.ts'
import type { PodContext } from './context.ts'
import { isWhole, pinAgain } from './losses.ts'
import { findPodStrays, removePodStray } from './pod-strays.ts'
import { removePod, undoPod } from './remove-pod.ts'
import { stopPod } from './stop-pod.ts'

const PARALLEL = 8

/**
 * Makes pods and kernel agree after a start. Comes after the containers: an undone pod has none. One that cannot be
 * recovered stays as not ready and stops nobody else.
 */
export async function recoverPods(context: PodContext): Promise<void> {
  const slots = new Semaphore('recovery', PARALLEL)
  await Promise.all(
    [...context.catalog.pods()].map(pod =>
      slots.run(async () => {
        try {
          await recoverPod(context, pod)
        } catch (error) {
          context.log.error(
            { podId: pod.id, error: messageOf(error) },
            'a pod could not be recovered; it is not ready until it is stopped and removed',
          )
          if (pod.phase !== 'removing') context.catalog.updatePod(pod.id, { phase: 'notready' })
          if (pod.phase === 'creating')
            context.retries.later(`stopping pod ${pod.id}`, () => stopPod(context, pod.id))
          if (pod.phase === 'removing')
            context.retries.later(`removing pod ${pod.id}`, () => removePod(context, pod.id))
        }
      }),
    ),
  )
}

/** Makes the row and the kernel agree about one pod, as after a start. */
export async function recoverPod(context: PodContext, pod: Pod): Promise<void> {
  switch (pod.phase) {
    case 'creating':
    case 'removing':
      await undoPod(context, pod)
      context.catalog.deletePod(pod.id)
      return
    case 'ready':
      pinAgain(context, pod)
      if (checkPod(context, pod)) context.inits.follow(pod)
      return
    case 'notready':
  }
}

/** Ready pods of which somebody has taken something away while the daemon runs. */
export function checkPods(context: PodContext): void {
  for (const pod of context.catalog.pods()) {
    if (pod.phase !== 'ready') continue
    try {
      pinAgain(context, pod)
      checkPod(context, pod)
    } catch (error) {
      context.log.warn({ podId: pod.id, error: messageOf(error) }, 'a pod could not be checked')
    }
  }
}

/** @returns false if it was found not to be ready any more */
function checkPod(context: PodContext, pod: Pod): boolean {
  if (isWhole(context, pod)) return true
  context.catalog.updatePod(pod.id, { phase: 'notready' })
  context.log.warn(
    { podId: pod.id },
    'a pod lost its namespaces or its init process: it is not ready any more',
  )
  context.events.emit('stopped', pod.id, pod.id)
  return false
}

/** Removes directories and pins of pods that have no row, and tells CNI which pods are still there. */
export async function sweepPods(context: PodContext): Promise<void> {
  const { catalog, log, network } = context
  // While their namespaces are there: plugins read from them what they have to take back.
  const living = [...catalog.pods()]
    .filter(pod => pod.networkHeld)
    .map(pod => ({ podId: pod.id, ifName: pod.network.attachment?.ifName ?? 'eth0' }))
  try {
    await network.collectGarbage(living)
  } catch (error) {
    // Without a usable configuration there is nothing to collect with; the next start tries again.
    log[isCode(error, 'unavailable') ? 'debug' : 'warn'](
      { error: messageOf(error) },
      'CNI garbage was not collected',
    )
  }
  for (const stray of findPodStrays(context)) {
    // What a cgroup alone tells of may be another daemon's.
    if (!stray.hasDirectory) continue
    log.warn({ podId: stray.id }, 'removing what is left of a pod that has no record')
    try {
      await removePodStray(context, stray)
    } catch (error) {
      log.error({ podId: stray.id, error: messageOf(error) }, 'a pod that has no record could not be removed')
    }
  }
}
