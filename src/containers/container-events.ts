import { nowNs } from '../base/clock.ts'
import type { Catalog } from '../state/catalog.ts'
import { type PodStatus, podStateOf, statusesOf } from './container-state.ts'

export type ContainerEventType = 'created' | 'started' | 'stopped' | 'deleted'

/** For an event of the pod sandbox itself, `containerId` is the pod's id. */
export type ContainerEvent = {
  readonly containerId: string
  readonly type: ContainerEventType
  readonly createdAt: bigint
  readonly podStatus: PodStatus
}

/**
 * Events a subscriber may leave unread. A node with 110 pods starting at once makes some 700; beyond this the oldest
 * event of the same pod is dropped, since the newer one carries the pod's whole status, else the oldest of all.
 */
const MAX_QUEUED = 2048

/**
 * Announces what happened to pods and containers, after it can be seen in lists and statuses, in the order of the
 * commits. Nobody waits for a slow reader: its queue is bounded and what it lost is counted.
 */
export class ContainerEvents {
  readonly #catalog: Catalog
  readonly #subscriptions = new Set<Subscription>()
  #last = 0n

  constructor(catalog: Catalog) {
    this.#catalog = catalog
  }

  /** Ends when `close` or `Symbol.dispose` is called. */
  subscribe(): Subscription {
    const subscription = new Subscription(() => this.#subscriptions.delete(subscription))
    this.#subscriptions.add(subscription)
    return subscription
  }

  /** With the pod's status as it is now. */
  emit(type: ContainerEventType, podId: string, containerId: string): void {
    if (this.#subscriptions.size === 0) return
    const podStatus = this.podStatus(podId)
    if (podStatus !== undefined) this.#publish({ type, containerId, createdAt: this.#now(), podStatus })
  }

  /** For what is gone already: with the status it had last. */
  emitLast(type: ContainerEventType, containerId: string, podStatus: PodStatus): void {
    if (this.#subscriptions.size > 0) this.#publish({ type, containerId, createdAt: this.#now(), podStatus })
  }

  /** The pod and its containers from one moment; undefined for a pod nobody may see. */
  podStatus(podId: string): PodStatus | undefined {
    const pod = this.#catalog.pod(podId)
    const state = pod && podStateOf(pod)
    if (pod === undefined || state === undefined) return undefined
    return { pod, state, containers: statusesOf(this.#catalog, podId), timestamp: nowNs() }
  }

  close(): void {
    for (const subscription of [...this.#subscriptions]) subscription[Symbol.dispose]()
  }

  #publish(event: ContainerEvent): void {
    for (const subscription of this.#subscriptions) subscription.push(event)
  }

  /** Never decreasing, even when the wall clock steps back. */
  #now(): bigint {
    const now = nowNs()
    if (now > this.#last) this.#last = now
    return this.#last
  }
}

class Subscription implements AsyncIterable<ContainerEvent>, Disposable {
  readonly #queue: ContainerEvent[] = []
  readonly #onClose: () => void
  #wake: (() => void) | undefined
  #closed = false
  /** Events this subscriber never saw because it read too slowly. */
  dropped = 0

  constructor(onClose: () => void) {
    this.#onClose = onClose
  }

  push(event: ContainerEvent): void {
    if (this.#queue.length >= MAX_QUEUED) {
      const same = this.#queue.findIndex(queued => queued.podStatus.pod.id === event.podStatus.pod.id)
      this.#queue.splice(Math.max(same, 0), 1)
      this.dropped++
    }
    this.#queue.push(event)
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ContainerEvent, void, undefined> {
    for (;;) {
      const event = this.#queue.shift()
      if (event !== undefined) {
        yield event
        continue
      }
      if (this.#closed) return
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true
    this.#onClose()
    this.#wake?.()
  }
}
