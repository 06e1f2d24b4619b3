/** Milliseconds by step. */
export type Steps = Readonly<Record<string, number>>

export type PeerName = 'floor' | 'containerd' | 'skopeo' | 'Berth'

/** OCI runtimes under which pods are measured; the same programs for every peer. */
export type Handler = 'runc' | 'crun'

/** Something that can fetch images. */
export interface Puller {
  readonly name: PeerName
  /** From the bench's registry to its disk. */
  pull(image: string): Promise<void>
  removeImage(image: string): Promise<void>
  /** A directory on the file system that it pulls to. */
  readonly storage: string
  /** Processor time that all its processes have taken so far, ms; undefined where that cannot be told apart. */
  cpuMs(): number | undefined
}

/** Something that can bring pods up: a daemon behind the CRI, or a script that does it by hand. */
export interface Peer extends Puller {
  /** A pod with one running container, by a number that is its own while it exists. */
  up(pod: number, handler: Handler): Promise<Steps>
  /** Stops and removes all of it. */
  down(pod: number): Promise<Steps>
  /** Runs `true` in the pod's container and waits for it. */
  exec(pod: number): Promise<void>
  /** Everything the peer itself runs with those pods, without the pods' own processes. */
  processes(): number[]
}

/** Runs the steps of an operation one after the other and keeps the time of each. */
export class StepTimer {
  readonly #steps: Record<string, number> = {}

  async time<T>(step: string, run: () => Promise<T>): Promise<T> {
    const started = performance.now()
    const result = await run()
    this.#steps[step] = performance.now() - started
    return result
  }

  get steps(): Steps {
    return this.#steps
  }
}
