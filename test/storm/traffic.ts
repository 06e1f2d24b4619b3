import { randomBytes } from 'node:crypto'
import { sleep } from '../../src/base/clock.ts'
import { BerthError } from '../../src/base/errors.ts'
import { busyboxImage, type TestImage } from '../support/images.ts'
import type { Kubelet } from '../support/kubelet.ts'
import type { Chance } from './chance.ts'

/** Between two calls of one kind. */
const PAUSE_MS = 100

/** What is served meanwhile: by name, how often it succeeded. */
export type TrafficCounts = Readonly<Record<string, number>>

/**
 * Everything else that a node does while pods come and go: commands, statistics, lists, logs that are opened anew,
 * images that are pulled and removed. What fails because its pod or its daemon has just gone is left.
 */
export class Traffic {
  readonly #kubelet: Kubelet
  readonly #chance: Chance
  readonly #counts: Record<string, number> = {}
  readonly #loops: readonly Promise<void>[]
  /** Of the defects that calls met: these are never to be. */
  readonly problems: string[] = []
  #isOver = false

  static async start(kubelet: Kubelet, chance: Chance): Promise<Traffic> {
    const noise = { name: 'noise', content: randomBytes(200_000) }
    const image = await busyboxImage({ extraLayers: [[noise]], labels: { soak: 'yes' } })
    return new Traffic(kubelet, chance, image)
  }

  private constructor(kubelet: Kubelet, chance: Chance, image: TestImage) {
    this.#kubelet = kubelet
    this.#chance = chance
    const name = 'docker.io/library/soak:1'
    kubelet.daemon.registry.push(image, 'docker.io/library/soak', '1')
    const { daemon } = kubelet
    this.#loops = [
      this.#repeat('lists', async () => {
        await daemon.client.runtime('ListPodSandbox', {})
        await daemon.client.runtime('ListContainers', {})
        await daemon.client.image('ListImages', {})
        await daemon.client.runtime('Status', { verbose: true })
      }),
      this.#repeat('statistics', async () => {
        await daemon.client.runtime('ListContainerStats', {})
        await daemon.client.runtime('ListPodSandboxStats', {})
        await daemon.client.image('ImageFsInfo', {})
      }),
      this.#onContainer('statuses', async id => {
        await daemon.client.runtime('ContainerStatus', { container_id: id, verbose: true })
      }),
      this.#onContainer('commands', async id => {
        await kubelet.exec(id, 'echo here; seq 1000 >&2', 10)
      }),
      this.#onContainer('reopened logs', async id => {
        await daemon.client.runtime('ReopenContainerLog', { container_id: id })
      }),
      this.#repeat('pulls and removals', async () => {
        await kubelet.pull(name)
        await daemon.client.image('RemoveImage', { image: { image: name } })
      }),
    ]
  }

  get counts(): TrafficCounts {
    return this.#counts
  }

  async #repeat(name: string, work: () => Promise<void>): Promise<void> {
    this.#counts[name] = 0
    while (!this.#isOver) {
      try {
        await work()
        this.#counts[name]++
      } catch (error) {
        if (!(error instanceof BerthError)) this.problems.push(`${name}: ${error}`)
      }
      await sleep(PAUSE_MS)
    }
  }

  #onContainer(name: string, work: (id: string) => Promise<void>): Promise<void> {
    return this.#repeat(name, async () => {
      const filter = { state: { state: 'CONTAINER_RUNNING' as const } }
      const { containers } = await this.#kubelet.daemon.client.runtime('ListContainers', { filter })
      if (containers.length > 0) await work(this.#chance.pick(containers).id)
    })
  }

  /** Returns when nothing of it is under way. */
  async end(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#loops)
  }
}
