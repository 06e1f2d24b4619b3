/**
 * Measures Berth beside Debian's containerd and beside the least that the same work costs by hand, and prints the
 * tables. A whole run also puts them into docs/performance.md.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { warmThreadPool } from '../src/os/node.ts'
import { checkExitNotices } from '../src/os/pidfd.ts'
import { berth } from './berth.ts'
import { containerd, fetchContainerd } from './containerd.ts'
import { CriPeer } from './cri-peer.ts'
import { furnish, runEnclosed } from './enclosure.ts'
import { Floor } from './floor.ts'
import { installedHandlers } from './handlers.ts'
import { describeMachine } from './machine.ts'
import { measurePods } from './measure-pods.ts'
import { measurePulling, measurePulls } from './measure-pulls.ts'
import { measureStanding } from './measure-standing.ts'
import { measureStreaming } from './measure-streaming.ts'
import type { Peer, PeerName, Puller } from './peer.ts'
import { ROOT } from './places.ts'
import { type Plan, QUICK, WHOLE } from './plan.ts'
import { type Registry, startRegistry } from './registry.ts'
import { report } from './report.ts'
import { Skopeo, skopeoVersion } from './skopeo.ts'
import { Samples } from './statistics.ts'

const PARTS = ['pods', 'standing', 'streaming', 'pulls'] as const
const ALL_PEERS: readonly PeerName[] = ['floor', 'containerd', 'Berth']

const USAGE = `npm run bench -- [options]

  --quick          few pods and small images, to see that it works
  --peers LIST     some of ${ALL_PEERS.join(',')}
  --parts LIST     some of ${PARTS.join(',')}
  --handlers LIST  some of runc,crun (default: what is installed)
`

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    peers: { type: 'string', default: ALL_PEERS.join(',') },
    parts: { type: 'string', default: PARTS.join(',') },
    handlers: { type: 'string', default: 'runc,crun' },
    enclosed: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (options.help) process.stdout.write(USAGE)
else if (options.enclosed) await measure()
else process.exitCode = await outside()

async function outside(): Promise<number> {
  if (process.getuid!() !== 0)
    throw new Error('the bench needs root, for namespaces, mounts and control groups')
  if (chosen('peers').includes('containerd')) fetchContainerd()
  return runEnclosed(import.meta.filename, [...process.argv.slice(2), '--enclosed'])
}

function chosen(option: 'peers' | 'parts' | 'handlers'): string[] {
  return options[option].split(',')
}

async function measure(): Promise<void> {
  const plan = options.quick ? QUICK : WHOLE
  furnish()
  await warmThreadPool()
  await checkExitNotices()
  const handlers = new Map([...installedHandlers()].filter(([name]) => chosen('handlers').includes(name)))
  const machine = describeMachine(new Date())
  say('the registry and its images')
  const registry = await startRegistry(plan.megabytes, plan.largeMegabytes)
  const samples = new Samples()
  const peers = await openPeers(handlers, registry)
  await measureAll(peers, [...handlers.keys()], registry, plan, samples)
  const text = report(samples, { handlers: [...handlers.keys()], pods: plan.standingPods, machine })
  process.stdout.write(`\n${text}`)
  if (isWhole()) writeDocument(text)
  // Namespaces and all that is in them go with this process.
  process.exit()
}

type Handlers = ReturnType<typeof installedHandlers>

async function openPeers(handlers: Handlers, { names }: Registry): Promise<Peer[]> {
  const peers: Peer[] = []
  for (const name of chosen('peers')) {
    say(`starting ${name}`)
    if (name === 'floor') {
      peers.push(await Floor.open(handlers, names.workload))
      continue
    }
    const peer = name === 'Berth' ? berth(handlers, names.workload) : containerd(handlers, names)
    await peer.open()
    peers.push(peer)
  }
  return peers
}

async function measureAll(
  peers: readonly Peer[],
  handlers: ReadonlyArray<'runc' | 'crun'>,
  registry: Registry,
  plan: Plan,
  samples: Samples,
): Promise<void> {
  const parts = chosen('parts')
  for (const handler of parts.includes('pods') ? handlers : []) {
    say(`pods and exec, ${handler}`)
    await measurePods(peers, handler, plan, samples)
  }
  for (const count of parts.includes('standing') ? plan.standingPods : []) {
    for (const peer of peers) {
      say(`${count} pods, ${peer.name}`)
      await measureStanding(peer, count, plan, samples)
    }
  }
  if (parts.includes('streaming')) {
    say('streaming')
    await measureStreaming(peers, plan, samples)
  }
  if (parts.includes('pulls')) {
    say('pulls')
    const pullers: Puller[] = [...peers]
    if (skopeoVersion() !== undefined) pullers.push(new Skopeo())
    await measurePulls(pullers, registry, plan, samples)
    for (const peer of peers) {
      if (!(peer instanceof CriPeer)) continue
      say(`what a large pull costs, ${peer.name}`)
      await measurePulling(peer, registry, samples)
    }
  }
}

function isWhole(): boolean {
  const all = (option: 'peers' | 'parts', names: readonly string[]) =>
    names.every(name => chosen(option).includes(name))
  return !options.quick && all('peers', ALL_PEERS) && all('parts', PARTS)
}

/** Between the markers; what people wrote around them stays. */
function writeDocument(text: string): void {
  const [begin, end] = ['<!-- begin: npm run bench -->', '<!-- end: npm run bench -->']
  const path = join(ROOT, 'docs/performance.md')
  const [before, rest] = readFileSync(path, 'utf8').split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`${path}: the markers are missing`)
  writeFileSync(path, `${before}${begin}\n\n${text}\n${end}${after}`)
}

function say(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}
