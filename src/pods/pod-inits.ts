import { messageOf } from '../base/errors.ts'
import type { ContainerEvents } from '../containers/container-events.ts'
import type { Pod } from '../model/pod.ts'
import type { Log } from '../observe/log.ts'
import { watchExit } from '../os/processes.ts'
import type { Catalog } from '../state/catalog.ts'

type Options = { readonly catalog: Catalog; readonly events: ContainerEvents; readonly log: Log }

/** A disk that was full may have room again. */
const RECORD_RETRY_MS = 5_000

/**
 * Watches the first processes of shared PID namespaces. Their end is the end of every process in the pod, and no
 * other can join: the pod is not ready from then on.
 */
export class PodInits implements Disposable {
  readonly #options: Options
  readonly #watches = new Map<string, Disposable>()

  constructor(options: Options) {
    this.#options = options
  }

  /** A pod without such a process needs no watch. Safe to call again. */
  follow({ id, init }: Pod): void {
    if (init === undefined || this.#watches.has(id)) return
    this.#watches.set(
      id,
      watchExit(init, () => this.#ended(id)),
    )
  }

  [Symbol.dispose](): void {
    for (const watch of this.#watches.values()) watch[Symbol.dispose]()
    this.#watches.clear()
  }

  #ended(id: string): void {
    const { catalog, events, log } = this.#options
    this.#watches.delete(id)
    if (catalog.pod(id)?.phase !== 'ready') return // it was stopped
    log.warn({ podId: id }, 'the init process of a pod has ended: it is not ready any more')
    try {
      catalog.updatePod(id, { phase: 'notready' })
      events.emit('stopped', id, id)
    } catch (error) {
      log.error({ podId: id, error: messageOf(error) }, 'the end of a pod could not be recorded yet')
      const retry = setTimeout(() => this.#ended(id), RECORD_RETRY_MS)
      this.#watches.set(id, { [Symbol.dispose]: () => clearTimeout(retry) })
    }
  }
}
