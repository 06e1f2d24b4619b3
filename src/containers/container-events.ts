import { nowNs } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
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

/** Events a subscriber may leave unread. A node with 110 pods starting at once makes some 700. */
const MAX_QUEUED = 2048

/** kubelet is one; each gets every event made into a message of its own, and may have its queue full. */
const MAX_SUBSCRIBERS = 64

/** `coalesced`: a later one, which was kept, has its pod's whole status. */
type EventLoss = 'coalesced' | 'lost'

type EventObserver = {
  /** An event that a subscriber never gets, because it reads too slowly. */
  onEventLoss(loss: EventLoss): void
}

/**
 * Announces what happened to pods and containers, after it can be seen in lists and statuses, in the order of the
 * commits. Nobody waits for a slow reader: its queue is bounded and what it lost is counted.
 */
export class ContainerEvents {
  readonly #catalog: Catalog
  readonly #observer: EventObserver
  readonly #subscriptions = new Set<Subscription>()
  #last = 0n

  constructor(catalog: Catalog, observer: EventObserver) {
    this.#catalog = catalog
    this.#observer = observer
  }

  /** Ends when `close` or `Symbol.dispose` is called. @throws BerthError exhausted */
  subscribe(): Subscription {
    if (this.#subscriptions.size >= MAX_SUBSCRIBERS) {
      throw new BerthError('exhausted', `${MAX_SUBSCRIBERS} clients are subscribed to events already`)
    }
    const subscription = new Subscription(this.#observer, () => this.#subscriptions.delete(subscription))
    this.#subscriptions.add(subscription)
    return subscription
  }

  /** With the pod's status as it is now. Called together with the commit, nothing in between, so that order is one. */
  emit(type: ContainerEventType, podId: string, containerId: string): void {
    if (this.#subscriptions.size === 0) return
    const podStatus = this.podStatus(podId)
    if (podStatus !== undefined) this.#publish({ type, containerId, createdAt: this.#now(), podStatus })
  }

  /** For a pod that is gone already: with the status it had last. */
  emitDeletedPod(podStatus: PodStatus): void {
    if (this.#subscriptions.size === 0) return
    this.#publish({ type: 'deleted', containerId: podStatus.pod.id, createdAt: this.#now(), podStatus })
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
  readonly #observer: EventObserver
  readonly #onClose: () => void
  #wake: (() => void) | undefined
  #closed = false

  constructor(observer: EventObserver, onClose: () => void) {
    this.#observer = observer
    this.#onClose = onClose
  }

  push(event: ContainerEvent): void {
    this.#queue.push(event)
    if (this.#queue.length > MAX_QUEUED) this.#drop(podOf(event))
    this.#wake?.()
  }

  /** Of what tells nothing that a later event does not tell as well, the oldest: of that pod, else of any. */
  #drop(podId: string): void {
    const latest = new Map(this.#queue.map((event, index) => [podOf(event), index]))
    const isOld = (event: ContainerEvent, index: number) => latest.get(podOf(event)) !== index
    let dropped = this.#queue.findIndex((event, index) => podOf(event) === podId && isOld(event, index))
    if (dropped < 0) dropped = this.#queue.findIndex(isOld)
    this.#queue.splice(Math.max(dropped, 0), 1)
    this.#observer.onEventLoss(dropped < 0 ? 'lost' : 'coalesced')
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

function podOf({ podStatus }: ContainerEvent): string {
  return podStatus.pod.id
}
