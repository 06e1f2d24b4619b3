import type { Digest } from '../base/digest.ts'
import type { LayerStore } from './layer-store.ts'
import type { PlannedLayer } from './layers.ts'

export type LayerProgress = {
  /** Of the compressed blob. */
  readonly digest: Digest
  /** `exists`: it was there before this pull. */
  readonly state: 'waiting' | 'downloading' | 'unpacking' | 'done' | 'exists'
  /** Compressed bytes received, and in all. */
  readonly bytes: number
  readonly total: number
}

export type PullProgress = {
  /** Lowest first. */
  readonly layers: readonly LayerProgress[]
}

/** The layers of a running pull. */
export type PullPlan = ReadonlyArray<PlannedLayer & { readonly existed: boolean }>

const PERIOD_MS = 100

/**
 * Calls `listener` with how far the pull is, at most ten times a second and only when something has changed.
 * @returns what ends it, with a last call if the pull succeeded: then the plan is passed
 */
export function reportProgress(
  store: LayerStore,
  planOf: () => PullPlan | undefined,
  listener: (progress: PullProgress) => void,
): (plan?: PullPlan) => void {
  let last = ''
  const report = (plan: PullPlan | undefined) => {
    if (plan === undefined) return
    const progress = { layers: plan.map(layer => progressOf(store, layer)) }
    const text = JSON.stringify(progress)
    if (text !== last) listener(progress)
    last = text
  }
  const timer = setInterval(() => report(planOf()), PERIOD_MS)
  return plan => {
    clearInterval(timer)
    report(plan)
  }
}

function progressOf(store: LayerStore, { chainId, blob, existed }: PullPlan[number]): LayerProgress {
  const { digest, size: total } = blob
  if (existed) return { digest, state: 'exists', bytes: total, total }
  const { state, bytes } = store.stateOf(chainId) ?? {
    state: store.isCommitted(chainId) ? ('done' as const) : ('waiting' as const),
    bytes: store.isCommitted(chainId) ? total : 0,
  }
  return { digest, state, bytes, total }
}
