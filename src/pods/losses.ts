import { type Pod, type ProcessRef, podUserOf } from '../model/pod.ts'
import type { Pin } from '../os/namespace-calls.ts'
import { isPinned } from '../os/namespaces.ts'
import { bootId } from '../os/node.ts'
import { isAlive } from '../os/processes.ts'
import { hasNetwork, type PodContext } from './context.ts'

/** Namespaces of a pod's own that are not pinned any more. */
export function lostPins({ paths }: PodContext, pod: Pod): Pin[] {
  const { namespaces } = pod.config
  const own: Pin[] = [
    ...(hasNetwork(pod) ? (['net', 'uts'] as const) : []),
    ...(namespaces.ipc === 'node' ? [] : (['ipc'] as const)),
    ...(podUserOf(namespaces) === undefined ? [] : (['user'] as const)),
  ]
  return own.filter(name => !isPinned(paths.pod(pod.id).namespace(name)))
}

/** The init process of a shared PID namespace has ended. */
export function hasLostInit(pod: Pod): boolean {
  return pod.config.namespaces.pid === 'pod' && (pod.init === undefined || !isAlive(pod.init))
}

/** Everything its containers stand on is still there. */
export function isWhole(context: PodContext, pod: Pod): boolean {
  return pod.bootId === bootId() && !hasLostInit(pod) && lostPins(context, pod).length === 0
}

/** A process that is in all namespaces of the pod, as long as it lives. */
export function memberOf({ catalog }: PodContext, pod: Pod): ProcessRef | undefined {
  const inits = catalog.containersOf(pod.id).flatMap(({ init }) => init ?? [])
  return [...(pod.init === undefined ? [] : [pod.init]), ...inits].find(isAlive)
}

/** Somebody unmounted the pins while containers were running: those are in the namespaces still. */
export function pinAgain(context: PodContext, pod: Pod): void {
  if (pod.bootId !== bootId()) return
  const member = memberOf(context, pod)
  if (member === undefined) return
  for (const name of lostPins(context, pod)) {
    context.pins.pinOf(member.pid, context.paths.pod(pod.id).namespaces, name)
    context.log.warn({ podId: pod.id, namespace: name }, 'a namespace that had lost its pin is pinned again')
  }
}
