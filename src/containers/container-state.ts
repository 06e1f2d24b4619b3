import { type BerthError, notFound } from '../base/errors.ts'
import type { Container } from '../model/container.ts'
import type { Pod } from '../model/pod.ts'
import type { Catalog } from '../state/catalog.ts'

/** CRI ContainerState. */
export type ContainerState = 'created' | 'running' | 'exited' | 'unknown'

export type ContainerStatus = { readonly container: Container; readonly state: ContainerState }

/** CRI PodSandboxState. `notready` is final. */
export type PodState = 'ready' | 'notready'

/** A pod and its containers as they were at one moment (`timestamp`, ns). */
export type PodStatus = {
  readonly pod: Pod
  readonly state: PodState
  readonly containers: readonly ContainerStatus[]
  readonly timestamp: bigint
}

/** What a client sees of a container; undefined while it is being created: nobody has its id yet. */
export function stateOf(container: Container): ContainerState | undefined {
  switch (container.phase) {
    case 'creating':
      return undefined
    case 'created':
    case 'running':
    case 'exited':
      return container.phase
    case 'removing':
      return 'exited'
    case 'unknown':
      return 'unknown'
  }
}

export function podStateOf(pod: Pod): PodState | undefined {
  if (pod.phase === 'creating') return undefined
  return pod.phase === 'ready' ? 'ready' : 'notready'
}

export function statusesOf(catalog: Catalog, podId: string): ContainerStatus[] {
  return catalog.containersOf(podId).flatMap(container => {
    const state = stateOf(container)
    return state === undefined ? [] : [{ container, state }]
  })
}

/** By id or unique prefix. @throws BerthError not-found */
export function requireContainer(catalog: Catalog, idOrPrefix: string): Container {
  const container = catalog.findContainer(idOrPrefix)
  if (container === undefined || container.phase === 'creating') throw containerNotFound(idOrPrefix)
  return container
}

function containerNotFound(id: string): BerthError {
  return notFound('container', id)
}
