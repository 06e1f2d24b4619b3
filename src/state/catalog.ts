import type { Digest } from '../base/digest.ts'
import { type Container, containerKey } from '../model/container.ts'
import { type Pod, podKey } from '../model/pod.ts'
import type { Database } from './database.ts'
import type { Unreadable } from './rows.ts'

/**
 * The pods and containers of the node, in memory, as their rows are on disk. Reads never wait for anything; a write
 * is one transaction, and memory follows only after it is on disk. Values are immutable: a change is a new object.
 */
export class Catalog {
  readonly #db: Database
  readonly #pods = new Map<string, Pod>()
  readonly #podIdByKey = new Map<string, string>()
  readonly #containers = new Map<string, Container>()
  readonly #containerIdByKey = new Map<string, string>()
  readonly #containerIdsByPod = new Map<string, Set<string>>()
  /** Rows that could not be read in full, for the log. */
  readonly unreadable: readonly Unreadable[]

  constructor(db: Database) {
    this.#db = db
    const pods = db.read.pods.all()
    const containers = db.read.containers.all()
    for (const pod of pods.pods) this.#setPod(pod)
    for (const container of containers.containers) this.#setContainer(container)
    this.unreadable = [...pods.unreadable, ...containers.unreadable]
  }

  pods(): Iterable<Pod> {
    return this.#pods.values()
  }

  pod(id: string): Pod | undefined {
    return this.#pods.get(id)
  }

  /** By id or unique prefix of one. */
  findPod(idOrPrefix: string): Pod | undefined {
    return find(this.#pods, idOrPrefix)
  }

  podByKey(key: string): Pod | undefined {
    const id = this.#podIdByKey.get(key)
    return id === undefined ? undefined : this.#pods.get(id)
  }

  containers(): Iterable<Container> {
    return this.#containers.values()
  }

  container(id: string): Container | undefined {
    return this.#containers.get(id)
  }

  /** By id or unique prefix of one. */
  findContainer(idOrPrefix: string): Container | undefined {
    return find(this.#containers, idOrPrefix)
  }

  containerByKey(key: string): Container | undefined {
    const id = this.#containerIdByKey.get(key)
    return id === undefined ? undefined : this.#containers.get(id)
  }

  /** Oldest first. */
  containersOf(podId: string): Container[] {
    return [...(this.#containerIdsByPod.get(podId) ?? [])].flatMap(id => this.#containers.get(id) ?? [])
  }

  insertPod(pod: Pod): void {
    this.#db.transact(`pod ${pod.phase}`, tx => tx.pods.insert(pod))
    this.#setPod(pod)
  }

  /** @returns the pod as it is now, or undefined when it is gone */
  updatePod(id: string, change: Partial<Omit<Pod, 'id'>>): Pod | undefined {
    const before = this.#pods.get(id)
    if (before === undefined) return undefined
    const pod = { ...before, ...change }
    this.#db.transact(`pod ${pod.phase}`, tx => tx.pods.update(pod))
    this.#setPod(pod)
    return pod
  }

  deletePod(id: string): void {
    const pod = this.#pods.get(id)
    if (pod === undefined) return
    this.#db.transact('pod gone', tx => tx.pods.delete(id))
    this.#pods.delete(id)
    this.#podIdByKey.delete(podKey(pod.config.metadata))
    this.#containerIdsByPod.delete(id)
  }

  /** `layers`: topmost layers of the root and of image volumes, held until the container is gone. */
  insertContainer(container: Container, layers: readonly Digest[]): void {
    this.#db.transact(`container ${container.phase}`, tx => {
      tx.containers.insert(container, layers)
      for (const image of new Set([container.imageId, ...Object.values(container.imageMounts)])) {
        tx.images.use(image, container.createdAt)
      }
    })
    this.#setContainer(container)
  }

  /** @returns the container as it is now, or undefined when it is gone */
  updateContainer(
    id: string,
    change: Partial<Omit<Container, 'id' | 'podId' | 'config'>>,
  ): Container | undefined {
    const before = this.#containers.get(id)
    if (before === undefined) return undefined
    const container = { ...before, ...change }
    this.#db.transact(`container ${container.phase}`, tx => tx.containers.update(container))
    this.#setContainer(container)
    return container
  }

  deleteContainer(id: string): void {
    const container = this.#containers.get(id)
    if (container === undefined) return
    this.#db.transact('container gone', tx => tx.containers.delete(id))
    this.#containers.delete(id)
    this.#containerIdByKey.delete(containerKey(container.podId, container.config.metadata))
    this.#containerIdsByPod.get(container.podId)?.delete(id)
  }

  #setPod(pod: Pod): void {
    this.#pods.set(pod.id, pod)
    this.#podIdByKey.set(podKey(pod.config.metadata), pod.id)
  }

  #setContainer(container: Container): void {
    this.#containers.set(container.id, container)
    this.#containerIdByKey.set(containerKey(container.podId, container.config.metadata), container.id)
    const ids = this.#containerIdsByPod.get(container.podId)
    if (ids === undefined) this.#containerIdsByPod.set(container.podId, new Set([container.id]))
    else ids.add(container.id)
  }
}

function find<T>(all: ReadonlyMap<string, T>, idOrPrefix: string): T | undefined {
  const exact = all.get(idOrPrefix)
  if (exact !== undefined || idOrPrefix === '') return exact
  let found: T | undefined
  for (const [id, value] of all) {
    if (!id.startsWith(idOrPrefix)) continue
    if (found !== undefined) return undefined
    found = value
  }
  return found
}
