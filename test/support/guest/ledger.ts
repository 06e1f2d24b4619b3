import type { ContainerStatus__Output } from '../../../src/cri/generated/runtime/v1/ContainerStatus.ts'
import type { PodSandbox__Output } from '../../../src/cri/generated/runtime/v1/PodSandbox.ts'
import type { TestNode } from '../kubelet.ts'

/** All that a daemon tells of pods, containers and images. */
export type Found = {
  readonly pods: ReadonlyMap<string, PodSandbox__Output>
  readonly containers: ReadonlyMap<string, ContainerStatus__Output>
  /** Image ids by name. */
  readonly images: ReadonlyMap<string, string>
}

export async function find({ client }: Pick<TestNode, 'client'>): Promise<Found> {
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  const { images } = await client.image('ListImages', {})
  const statuses = await Promise.all(
    containers.map(({ id }) => client.runtime('ContainerStatus', { container_id: id })),
  )
  return {
    pods: new Map(items.map(pod => [pod.id, pod])),
    containers: new Map(statuses.map(({ status }) => [status?.id ?? '', status!])),
    images: new Map(images.flatMap(({ id, repo_tags }) => repo_tags.map(name => [name, id]))),
  }
}

type Fact = {
  readonly what: string
  readonly holds: (found: Found) => unknown
  readonly from: number
  until: number
}

/**
 * What a client was told, and when. Each fact must hold in every state from its acknowledgement to the request that
 * changed it, and nothing is said about the time in between.
 */
export class Ledger {
  readonly #now: () => number
  readonly #facts = new Map<string, Fact>()
  readonly #past: Fact[] = []

  /** `now` numbers the states that a power cut may leave. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Times at which something was acknowledged. */
  get acknowledgements(): number[] {
    return [...new Set([...this.#past, ...this.#facts.values()].map(({ from }) => from))]
  }

  /** It was acknowledged just now. */
  learn(what: string, holds: Fact['holds']): void {
    this.#facts.set(what, { what, holds, from: this.#now(), until: Number.POSITIVE_INFINITY })
  }

  /** From now on the facts whose names begin so may be otherwise. */
  forget(prefix: string): void {
    for (const fact of [...this.#facts.values()].filter(({ what }) => what.startsWith(prefix))) {
      fact.until = this.#now()
      this.#facts.delete(fact.what)
      this.#past.push(fact)
    }
  }

  /** @returns the facts that hold no more in the state with that number, and how many had to */
  check(at: number, found: Found): { readonly broken: string[]; readonly checked: number } {
    const due = [...this.#past, ...this.#facts.values()].filter(
      ({ from, until }) => from <= at && at <= until,
    )
    return {
      broken: due.filter(({ holds }) => !holds(found)).map(({ what }) => what),
      checked: due.length,
    }
  }
}
