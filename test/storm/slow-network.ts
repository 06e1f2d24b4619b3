import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isCode } from '../../src/base/errors.ts'
import type { BerthClient } from '../../src/cri/client.ts'
import { ImpatientClients } from '../support/impatience.ts'
import type { Kubelet } from '../support/kubelet.ts'
import { isDuplicate } from './callers.ts'

/** ms after which the same call is given up each time; the last one from then on. */
const PATIENCE = [1, 5, 20, 100, 500, 1000, 2000, 5000]

const PODS = 5

/** Calls of one kind, until they were answered. */
type Answered = { readonly calls: number; readonly seconds: number }

export type SlowNetworkResult = {
  readonly ran: readonly Answered[]
  readonly removed: readonly Answered[]
  readonly problems: readonly string[]
}

/**
 * Pods whose network takes this long to come and as long to go, for clients that give up after 1 ms to 5 s and make
 * the same call again: each is attached once, detached once, and answered as soon as it is done.
 */
export async function slowNetwork(kubelet: Kubelet, seconds: number): Promise<SlowNetworkResult> {
  const { daemon } = kubelet
  const file = join(daemon.directory, 'slow-network')
  writeFileSync(file, '')
  const note = `echo "$CNI_COMMAND $CNI_CONTAINERID" >> ${file}; sleep ${seconds}`
  daemon.configureNetwork({ plugins: [daemon.networkPlugin('slow', note)] })
  using clients = await ImpatientClients.connect(daemon.socket, PATIENCE)
  const problems: string[] = []
  const configs = Array.from({ length: PODS }, () => kubelet.podConfig())
  const ran = await Promise.all(
    configs.map(config =>
      repeated(clients, async client => {
        await client.runtime('RunPodSandbox', { config })
      }),
    ),
  )
  const { items } = await daemon.client.runtime('ListPodSandbox', {})
  if (items.length !== PODS) problems.push(`${items.length} pods instead of ${PODS}`)
  const ids = items.map(({ id }) => id)
  const removed = await Promise.all(
    ids.map(pod_sandbox_id =>
      repeated(clients, async client => {
        await client.runtime('RemovePodSandbox', { pod_sandbox_id })
      }),
    ),
  )
  const notes = readFileSync(file, 'utf8').trimEnd().split('\n')
  for (const id of ids) {
    for (const verb of ['ADD', 'DEL']) {
      const times = notes.filter(line => line === `${verb} ${id}`).length
      if (times !== 1) problems.push(`pod ${id}: ${times} times ${verb}`)
    }
  }
  if (notes.length !== 2 * PODS) problems.push(`${notes.length} calls of the plugin for ${PODS} pods`)
  daemon.configureNetwork()
  return { ran, removed, problems }
}

async function repeated(
  clients: ImpatientClients,
  call: (client: BerthClient) => Promise<void>,
): Promise<Answered> {
  const started = performance.now()
  for (let calls = 1; ; calls++) {
    try {
      await call(clients.all[Math.min(calls, clients.all.length) - 1]!)
      return { calls, seconds: (performance.now() - started) / 1000 }
    } catch (error) {
      // The answer may have come just when it was given up: then the same call is a duplicate.
      if (isDuplicate(error)) return { calls, seconds: (performance.now() - started) / 1000 }
      if (!isCode(error, 'deadline')) throw error
    }
  }
}
