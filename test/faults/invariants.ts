import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { sleep } from '../../src/base/clock.ts'
import type { BerthDaemon } from '../support/daemon.ts'
import { footprint } from '../support/footprint.ts'
import type { FaultRig } from './rig.ts'

/** Everything that clients see of pods, containers and images. */
export async function everything({ daemon, kubelet }: FaultRig): Promise<unknown> {
  const { client } = daemon
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  const { images } = await client.image('ListImages', {})
  return {
    pods: await Promise.all(items.map(({ id }) => kubelet.podStatus(id))),
    containers: await Promise.all(containers.map(({ id }) => kubelet.status(id))),
    images,
  }
}

/**
 * What must hold whatever happened: no name twice, and everything in the kernel and on disk belongs to a row. What is
 * on its way out gets a moment.
 * @throws Error that names what belongs to nobody
 */
export async function assertInvariants(rig: FaultRig): Promise<void> {
  await assertNamesAreUnique(rig)
  const end = performance.now() + STRANGERS_MS
  for (;;) {
    const strange = await strangers(rig)
    if (strange.length === 0) return
    if (performance.now() > end) throw new Error(`these belong to no row:\n${strange.join('\n')}`)
    await sleep(LOOK_MS)
  }
}

/** A layer that is being deleted, a process that is being killed. */
const STRANGERS_MS = 15_000
const LOOK_MS = 200

async function assertNamesAreUnique({ daemon: { client } }: FaultRig): Promise<void> {
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  const names = [
    ...items.map(({ metadata }) => `pod ${JSON.stringify(metadata)}`),
    ...containers.map(({ pod_sandbox_id, metadata }) => `${pod_sandbox_id} ${JSON.stringify(metadata)}`),
  ]
  const twice = names.filter((name, index) => names.indexOf(name) !== index)
  if (twice.length > 0) throw new Error(`two with one name: ${twice.join(', ')}`)
}

/** Lines of the footprint, and layers, that no row stands for. */
async function strangers({ daemon, idle }: FaultRig): Promise<string[]> {
  const things = [...(await footprint(daemon))].filter(thing => !idle.has(thing))
  const rows = things.filter(thing => /^(pod|container) row /.test(thing))
  const ids = rows.map(row => row.slice(-64))
  const owned = (text: string) => ids.some(id => text.includes(id))
  const rules = things.filter(thing => thing.startsWith('rule '))
  const chains = new Set(rules.filter(owned).flatMap(rule => rule.match(CHAIN) ?? []))
  const links = things.filter(thing => thing.startsWith('link '))
  const namespaces = things.filter(thing => /^mount .*\/ns\/net$/.test(thing))
  return [
    ...things.filter(thing => {
      const [kind] = thing.split(' ', 1)
      if (kind === 'pod' || kind === 'container' || kind === 'hold' || kind === 'link') return false
      if (kind === 'process') return !owned(thing) && !owned(groupsOf(thing))
      if (kind === 'rule') return !owned(thing) && !(thing.match(CHAIN) ?? []).some(name => chains.has(name))
      if (kind === 'address') return !owned(holderOf(daemon, thing))
      // A pod's own group is its client's, who makes no other directly below the parent.
      if (kind === 'cgroup' && /\/berth-faults-[0-9a-f]+(\/poduid-[^/]+)?$/.test(thing)) return false
      if (kind === 'file' && EMPTY_PLACES.test(thing)) return false
      return !owned(thing)
    }),
    ...(links.length > namespaces.length ? [`${links.length} links of ${namespaces.length} namespaces`] : []),
    ...strangeLayers(daemon),
  ]
}

const CHAIN = /CNI-(?:DN-)?[0-9a-f]{20,}/g

/** Directories that are made when they are first needed and stay. */
const EMPTY_PLACES =
  /\/(run|state)?\/?(cni|execs|exits|trash|partial|partials|grave|containers|pods|rootfs|sockets|socket|persist)$/

/** Of a line about a process. */
function groupsOf(line: string): string {
  try {
    return readFileSync(`/proc/${/^process (\d+)/.exec(line)?.[1]}/cgroup`, 'utf8')
  } catch {
    return '' // ended meanwhile
  }
}

function holderOf({ ipamDir }: BerthDaemon, line: string): string {
  try {
    return readFileSync(join(ipamDir, 'pods', line.slice('address '.length)), 'utf8')
  } catch {
    return line // given back meanwhile
  }
}

/** Directories of layers without a row, and rows without a directory. */
function strangeLayers({ root }: BerthDaemon): string[] {
  const database = new Database(join(root, 'berth.db'), { readonly: true })
  try {
    const sql = `SELECT number FROM layers WHERE phase = 'committed'`
    const numbers = new Set(database.prepare(sql).pluck().all().map(Number))
    const names = readdirSync(join(root, 'layers'))
    return [
      ...names.filter(name => !numbers.has(Number.parseInt(name, 10))).map(name => `layer directory ${name}`),
      ...[...numbers]
        .filter(number => !names.some(name => Number.parseInt(name, 10) === number))
        .map(number => `layer row ${number} without a directory`),
    ]
  } finally {
    database.close()
  }
}
