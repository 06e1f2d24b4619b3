import type { ContainerStatus__Output } from '../../../src/cri/generated/runtime/v1/ContainerStatus.ts'
import { busyboxImage } from '../images.ts'
import { FOREVER } from '../kubelet.ts'
import type { Ledger } from './ledger.ts'
import type { GuestNode } from './node.ts'

/** Images share a layer and have one of their own, of many files. */
async function pushImages(node: GuestNode, count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, index) => `docker.io/library/app-${index}`)
  const shared = Object.fromEntries(filesOf('shared', 40).map(([path, text]) => [`/shared/${path}`, text]))
  for (const name of names) {
    const own = filesOf(name, 60).map(([path, content]) => ({ name: path, content }))
    node.registry.push(await busyboxImage({ files: shared, extraLayers: [own] }), name, 'v1')
  }
  return names.map(name => `${name}:v1`)
}

/** From a line to a hundred kilobytes. */
function filesOf(seed: string, count: number): Array<[string, string]> {
  return Array.from({ length: count }, (_, index) => [
    `file-${index}`,
    `${seed} ${index}\n`.repeat(1 + ((index * 97) % 40) ** 2),
  ])
}

/** Pulls `count` images, removes every second one and pulls it again. */
export async function churnImages(node: GuestNode, ledger: Ledger, count: number): Promise<void> {
  const pull = async (name: string) => {
    ledger.forget(`image ${name}`)
    const id = await node.kubelet.pull(name)
    ledger.learn(`image ${name}`, ({ images }) => images.get(name) === id)
  }
  for (const [index, name] of (await pushImages(node, count)).entries()) {
    await pull(name)
    if (index % 2 === 0) continue
    ledger.forget(`image ${name}`)
    await node.client.image('RemoveImage', { image: { image: name } })
    ledger.learn(`image ${name} is gone`, ({ images }) => !images.has(name))
    ledger.forget(`image ${name} is gone`)
    await pull(name)
  }
}

/** Pods with a container that ran to its end, one that was stopped, one that runs and one that was never started. */
export async function churnPods(
  node: GuestNode,
  ledger: Ledger,
  rounds: number,
  name: string,
): Promise<void> {
  const { kubelet } = node
  for (let round = 0; round < rounds; round++) {
    const labels = { churn: `${name}-${round}` }
    const pod = await kubelet.runPod({ labels, annotations: labels })
    const of = `pod ${pod.id}`
    ledger.learn(of, ({ pods }) => pods.get(pod.id)?.labels.churn === labels.churn)

    const known = async (id: string, what: string, same: ReadonlyArray<keyof ContainerStatus__Output>) => {
      const told = await kubelet.status(id)
      ledger.learn(`${of} container ${id} ${what}`, ({ containers }) => {
        const found = containers.get(id)
        return found !== undefined && same.every(key => String(found[key]) === String(told[key]))
      })
    }
    const created = await kubelet.create(pod, FOREVER, { annotations: labels })
    await known(created, 'created', ['created_at', 'log_path', 'image_id'])
    const ending = await kubelet.run(pod, 'echo said; exit 7')
    const running = await kubelet.run(pod, "trap 'exit 3' TERM; while :; do sleep 1; done")
    await known(running, 'started', ['created_at', 'started_at'])
    await kubelet.exited(ending)
    await known(ending, 'exited', ['started_at', 'finished_at', 'exit_code', 'reason'])

    if (round % 2 === 0) {
      await kubelet.stop(running, 30)
      await known(running, 'stopped', ['started_at', 'finished_at', 'exit_code', 'reason'])
    }
    if (round % 3 === 0) {
      ledger.forget(`${of} container ${ending}`)
      await kubelet.remove(ending)
      ledger.learn(`${of} container ${ending} is gone`, ({ containers }) => !containers.has(ending))
    }
    if (round % 3 === 2) {
      ledger.forget(of)
      await kubelet.removePod(pod.id)
      ledger.learn(`${of} is gone`, ({ pods }) => !pods.has(pod.id))
      for (const id of [created, running, ending])
        ledger.learn(`${of} container ${id} is gone`, ({ containers }) => !containers.has(id))
    }
  }
}
