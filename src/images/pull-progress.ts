import type { Digest } from '../base/digest.ts'
import type { FetchState } from './fetch-layer.ts'
import type { LayerStore } from './layer-store.ts'
import type { PlannedLayer } from './layers.ts'

export type LayerProgress = {
  /** Of the compressed blob. */
  readonly digest: Digest
  /** `exists`: it was there before this pull. */
  readonly state: FetchState['state'] | 'done' | 'exists'
  /** Compressed bytes received, handed on to be unpacked, and in all. */
  readonly bytes: number
  readonly unpacked: number
  readonly total: number
  /** What it waits for, in words; '' while it is at work. */
  readonly waitsFor: string
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
  const whole = { bytes: total, unpacked: total, waitsFor: '' }
  if (existed) return { digest, state: 'exists', total, ...whole }
  const fetching = store.stateOf(chainId)
  if (fetching !== undefined) return { digest, total, ...fetching }
  if (store.isCommitted(chainId)) return { digest, state: 'done', total, ...whole }
  return { digest, state: 'waiting', total, bytes: 0, unpacked: 0, waitsFor: 'its turn' }
}
