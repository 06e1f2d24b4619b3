import type { PodSandbox__Output } from '../../src/cri/generated/runtime/v1/PodSandbox.ts'
import type { PodSandboxConfig } from '../../src/cri/generated/runtime/v1/PodSandboxConfig.ts'
import { FOREVER, type Kubelet, type TestPod } from '../support/kubelet.ts'
import { type Callers, isDuplicate } from './callers.ts'
import type { Chance } from './chance.ts'

const UID = 'io.kubernetes.pod.uid'

/** A pod that somebody wants, and who wants it. */
export type WantedPod = {
  readonly uid: string
  /** Of attempt 0. */
  readonly config: PodSandboxConfig
  readonly chance: Chance
}

/** What a client does that wants a pod with one container, or wants it no more: until it is so. */
export interface PodClient {
  /** The sandbox is ready. */
  up(pod: WantedPod): Promise<TestPod>
  /** Its container runs. */
  start(pod: WantedPod, sandbox: TestPod): Promise<void>
  /** Its container is stopped, and another one runs. */
  restart(pod: WantedPod, sandbox: TestPod): Promise<void>
  /** Nothing of the pod is in the lists. */
  down(pod: WantedPod): Promise<void>
}

export function wantPod(kubelet: Kubelet, chance: Chance): WantedPod {
  const config = kubelet.podConfig()
  const uid = config.metadata!.uid!
  return { uid, chance, config: { ...config, labels: { [UID]: uid } } }
}

abstract class AnyClient implements PodClient {
  readonly kubelet: Kubelet
  readonly callers: Callers

  constructor(kubelet: Kubelet, callers: Callers) {
    this.kubelet = kubelet
    this.callers = callers
  }

  abstract up(pod: WantedPod): Promise<TestPod>
  abstract start(pod: WantedPod, sandbox: TestPod): Promise<void>
  abstract restart(pod: WantedPod, sandbox: TestPod): Promise<void>
  abstract down(pod: WantedPod): Promise<void>

  /** Newest attempt first. */
  protected async sandboxes(pod: WantedPod) {
    const filter = { label_selector: { [UID]: pod.uid } }
    const { items } = await this.callers.once(pod.chance, client =>
      client.runtime('ListPodSandbox', { filter }),
    )
    return items.sort((a, b) => b.metadata!.attempt - a.metadata!.attempt)
  }

  /** Newest attempt first. */
  protected async containersOf(pod: WantedPod, id: string) {
    const filter = { pod_sandbox_id: id }
    const { containers } = await this.callers.once(pod.chance, client =>
      client.runtime('ListContainers', { filter }),
    )
    return containers.sort((a, b) => b.metadata!.attempt - a.metadata!.attempt)
  }

  protected async runSandbox({ chance, config }: WantedPod, attempt: number): Promise<TestPod> {
    const next = { ...config, metadata: { ...config.metadata, attempt } }
    const reply = await this.callers.once(chance, client => client.runtime('RunPodSandbox', { config: next }))
    return { id: reply.pod_sandbox_id, config: next }
  }

  protected async create({ chance, uid }: WantedPod, sandbox: TestPod, attempt: number): Promise<string> {
    const metadata = { name: 'main', attempt }
    const log_path = `main/${attempt}.log`
    const config = this.kubelet.containerConfig(sandbox, FOREVER, {
      metadata,
      log_path,
      labels: { [UID]: uid },
    })
    const request = { pod_sandbox_id: sandbox.id, config, sandbox_config: sandbox.config }
    const reply = await this.callers.once(chance, client => client.runtime('CreateContainer', request))
    return reply.container_id
  }

  protected async startContainer({ chance }: WantedPod, container_id: string): Promise<void> {
    await this.callers.once(chance, client => client.runtime('StartContainer', { container_id }))
  }

  protected async stopContainer({ chance }: WantedPod, container_id: string): Promise<void> {
    await this.callers.once(chance, client => client.runtime('StopContainer', { container_id, timeout: 0 }))
  }

  protected async stopSandbox({ chance }: WantedPod, pod_sandbox_id: string): Promise<void> {
    await this.callers.once(chance, client => client.runtime('StopPodSandbox', { pod_sandbox_id }))
  }

  protected async removeSandbox({ chance }: WantedPod, pod_sandbox_id: string): Promise<void> {
    await this.callers.once(chance, client => client.runtime('RemovePodSandbox', { pod_sandbox_id }))
  }
}

/**
 * As kubelet: looks at the lists before each step, and has another attempt of what it finds in a state that it does not
 * want. What it never saw it asks for again under the same attempt.
 */
export class LookingClient extends AnyClient {
  /** Containers that it wanted stopped: a call that it gave up may still be at work when it looks again. */
  readonly #unwanted = new Set<string>()

  async up(pod: WantedPod): Promise<TestPod> {
    return this.callers.again(`pod ${pod.uid} is ready`, async () => {
      const [newest, ...older] = await this.sandboxes(pod)
      for (const old of older) if (isReady(old)) await this.stopSandbox(pod, old.id)
      if (newest === undefined) return this.runSandbox(pod, 0)
      const { attempt } = newest.metadata!
      if (isReady(newest))
        return { id: newest.id, config: { ...pod.config, metadata: { ...newest.metadata } } }
      await this.stopSandbox(pod, newest.id)
      return this.runSandbox(pod, attempt + 1)
    })
  }

  async start(pod: WantedPod, sandbox: TestPod): Promise<void> {
    await this.callers.again(`the container of pod ${pod.uid} runs`, async () => {
      const all = await this.containersOf(pod, sandbox.id)
      const [newest] = all
      if (newest?.state === 'CONTAINER_RUNNING' && !this.#unwanted.has(newest.id)) return true
      // Its start may have been given up and be under way: there would be two of them.
      for (const { id, state } of all) if (state !== 'CONTAINER_EXITED') await this.#stopUnwanted(pod, id)
      const id = await this.create(pod, sandbox, newest === undefined ? 0 : newest.metadata!.attempt + 1)
      await this.startContainer(pod, id)
      return undefined
    })
  }

  async restart(pod: WantedPod, sandbox: TestPod): Promise<void> {
    await this.callers.again(`the container of pod ${pod.uid} is stopped`, async () => {
      const running = (await this.containersOf(pod, sandbox.id)).find(
        ({ state }) => state === 'CONTAINER_RUNNING',
      )
      if (running === undefined) return true
      await this.#stopUnwanted(pod, running.id)
      return undefined
    })
    await this.start(pod, sandbox)
  }

  async #stopUnwanted(pod: WantedPod, id: string): Promise<void> {
    this.#unwanted.add(id)
    await this.stopContainer(pod, id)
  }

  async down(pod: WantedPod): Promise<void> {
    await this.callers.again(`pod ${pod.uid} is gone`, async () => {
      const found = await this.sandboxes(pod)
      for (const { id } of found) {
        for (const container of await this.containersOf(pod, id)) await this.stopContainer(pod, container.id)
        await this.stopSandbox(pod, id)
        await this.removeSandbox(pod, id)
      }
      return found.length === 0 ? true : undefined
    })
  }
}

/** Makes the very same call again until it is answered. */
export class RepeatingClient extends AnyClient {
  async up(pod: WantedPod): Promise<TestPod> {
    return this.#repeated(
      `pod ${pod.uid} is ready`,
      () => this.runSandbox(pod, 0),
      async () => ({ id: (await this.sandboxes(pod))[0]!.id, config: pod.config }),
    )
  }

  async start(pod: WantedPod, sandbox: TestPod): Promise<void> {
    await this.#run(pod, sandbox, 0)
  }

  async restart(pod: WantedPod, sandbox: TestPod): Promise<void> {
    const [{ id, metadata } = { id: '', metadata: null }] = await this.callers.again(
      'the list is answered',
      () => this.containersOf(pod, sandbox.id),
    )
    await this.#repeated(`the container of pod ${pod.uid} is stopped`, async () => {
      await this.stopContainer(pod, id)
      return true
    })
    await this.#run(pod, sandbox, metadata!.attempt + 1)
  }

  async #run(pod: WantedPod, sandbox: TestPod, attempt: number): Promise<void> {
    const id = await this.#repeated(
      `the container of pod ${pod.uid} is created`,
      () => this.create(pod, sandbox, attempt),
      async () => (await this.containersOf(pod, sandbox.id))[0]!.id,
    )
    await this.#repeated(
      `the container of pod ${pod.uid} is started`,
      async () => {
        await this.startContainer(pod, id)
        return true
      },
      async () => true,
    )
  }

  async down(pod: WantedPod): Promise<void> {
    const found = await this.callers.again('the list is answered', () => this.sandboxes(pod))
    for (const { id } of found) {
      await this.#repeated(`pod ${pod.uid} is stopped`, () => this.stopSandbox(pod, id).then(() => true))
      await this.#repeated(`pod ${pod.uid} is removed`, () => this.removeSandbox(pod, id).then(() => true))
    }
  }

  /** @param found finds what an answer that was lost had said */
  #repeated<T>(what: string, call: () => Promise<T>, found?: () => Promise<T>): Promise<T> {
    let isLost = false
    return this.callers.again(what, async () => {
      if (isLost) return found!()
      try {
        return await call()
      } catch (error) {
        if (found === undefined || !isDuplicate(error)) throw error
        isLost = true
        return undefined
      }
    })
  }
}

function isReady(sandbox: PodSandbox__Output): boolean {
  return sandbox.state === 'SANDBOX_READY'
}
