import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, isCode, messageOf } from '../base/errors.ts'
import { Semaphore } from '../base/semaphore.ts'
import { type Pod, podUserOf } from '../model/pod.ts'
import { removeTree } from '../os/files.ts'
import { mountPointsBelow, unmountAll } from '../os/mounts.ts'
import { isPinned } from '../os/namespaces.ts'
import { bootId } from '../os/node.ts'
import { isAlive } from '../os/processes.ts'
import { hasNetwork, type PodContext } from './context.ts'
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

async function recoverPod(context: PodContext, pod: Pod): Promise<void> {
  switch (pod.phase) {
    case 'creating':
    case 'removing':
      await undoPod(context, pod)
      context.catalog.deletePod(pod.id)
      return
    case 'ready':
      if (!isWhole(context, pod)) {
        context.catalog.updatePod(pod.id, { phase: 'notready' })
        context.log.warn(
          { podId: pod.id },
          'a pod lost its namespaces or its init process: it is not ready any more',
        )
      } else {
        context.inits.follow(pod)
      }
      return
    case 'notready':
  }
}

/** Everything its containers stand on is still there. */
function isWhole(context: PodContext, pod: Pod): boolean {
  if (pod.bootId !== bootId()) return false
  const paths = context.paths.pod(pod.id)
  if (hasNetwork(pod) && !isPinned(paths.namespace('net'))) return false
  if (pod.config.namespaces.ipc !== 'node' && !isPinned(paths.namespace('ipc'))) return false
  if (podUserOf(pod.config.namespaces) !== undefined && !isPinned(paths.namespace('user'))) return false
  return pod.config.namespaces.pid !== 'pod' || (pod.init !== undefined && isAlive(pod.init))
}

/** Removes directories and pins of pods that have no row, and tells CNI which pods are still there. */
export async function sweepPods(context: PodContext): Promise<void> {
  const { catalog, paths, log, network } = context
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
  for (const id of namesIn(paths.pods)) {
    if (catalog.pod(id) !== undefined) continue
    log.warn({ podId: id }, 'removing the directory of a pod that has no record')
    const directory = join(paths.pods, id)
    for (const point of mountPointsBelow(directory)) unmountAll(point)
    await removeTree(directory)
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
