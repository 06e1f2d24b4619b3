import { sleep } from '../../src/base/clock.ts'
import { Semaphore } from '../../src/base/semaphore.ts'
import { footprint, removePodCgroup } from '../support/footprint.ts'
import type { Kubelet, TestPod } from '../support/kubelet.ts'
import { until } from '../support/wait.ts'
import { type CallCounts, Callers } from './callers.ts'
import { Chance } from './chance.ts'
import { LookingClient, type PodClient, RepeatingClient, type WantedPod, wantPod } from './pods.ts'

export type StormOptions = {
  readonly seed: number
  /** How many are wanted in the end, each with one container. */
  readonly pods: number
  /** All at once unless given. */
  readonly atATime?: number
  /** SIGKILL for the daemon, spread over the work. */
  readonly kills: number
  /** How a client goes on after a call that it gave up: as kubelet does, or with the very same call. */
  readonly retry: 'looks' | 'repeats'
  /** Part of the calls that are given up after a time by chance. */
  readonly givenUp: number
}

export type StormResult = {
  readonly counts: CallCounts
  readonly seconds: number
  readonly kills: number
  /** Further attempts that there were. */
  readonly attempts: { readonly pods: number; readonly containers: number }
  /** What is there that nobody asked for, or is not there; must be empty. */
  readonly problems: readonly string[]
}

/** Of the pods, this part is removed again and replaced by another one; of the containers, this part restarted. */
const REPLACED = 0.5
const RESTARTED = 0.3

/** A daemon that was told to start is killed again at the earliest after this many ms, by chance. */
const REST_MS = 500

/** What has ended may still be on its way out. */
const SETTLE_MS = 60_000

/**
 * Brings the wanted pods up, with everything going wrong meanwhile, and says what is not as it should be.
 * @param calm ends what else is asked of the daemon, before that is looked at
 */
export async function storm(
  kubelet: Kubelet,
  options: StormOptions,
  calm: () => Promise<void> = async () => undefined,
): Promise<StormResult> {
  const before = await footprint(kubelet.daemon)
  const started = performance.now()
  const chance = new Chance(options.seed)
  using callers = await Callers.of(kubelet.daemon, options.givenUp)
  const client = new (options.retry === 'looks' ? LookingClient : RepeatingClient)(kubelet, callers)
  const progress = new Progress()
  const slots = new Semaphore('pods', options.atATime ?? options.pods)
  const wanted = Array.from({ length: options.pods }, (_, index) => chance.fork(index))
  const total = options.pods * (2 + RESTARTED + 3 * REPLACED)
  const killer = new Killer(kubelet, callers, chance.fork(-1), progress)
  const [pods] = await Promise.all([
    Promise.all(wanted.map(fate => slots.run(() => life(kubelet, client, fate, progress)))),
    killer.kill(options.kills, total),
  ])
  const seconds = (performance.now() - started) / 1000
  await calm()
  const problems = await problemsOf(kubelet, pods, before)
  const attempts = await attemptsOf(kubelet, pods)
  return { counts: callers.counts, seconds, kills: options.kills, attempts, problems }
}

/** One pod's: up, perhaps gone again and another in its place, perhaps with another container. What is there then. */
async function life(
  kubelet: Kubelet,
  client: PodClient,
  chance: Chance,
  progress: Progress,
): Promise<WantedPod> {
  const wanted = async () => {
    const pod = wantPod(kubelet, chance)
    const sandbox = await client.up(pod)
    progress.step()
    await client.start(pod, sandbox)
    progress.step()
    return { pod, sandbox }
  }
  let { pod, sandbox } = await wanted()
  if (chance.happens(REPLACED)) {
    await client.down(pod)
    // It was named by the client, and is the client's to remove.
    removePodCgroup(pod.config.linux!.cgroup_parent!)
    progress.step()
    const next = await wanted()
    pod = next.pod
    sandbox = next.sandbox
  }
  if (chance.happens(RESTARTED)) {
    await client.restart(pod, sandbox)
    progress.step()
  }
  return pod
}

/** How many steps have been done by all. */
class Progress {
  steps = 0

  step(): void {
    this.steps++
  }
}

class Killer {
  readonly #kubelet: Kubelet
  readonly #callers: Callers
  readonly #chance: Chance
  readonly #progress: Progress

  constructor(kubelet: Kubelet, callers: Callers, chance: Chance, progress: Progress) {
    this.#kubelet = kubelet
    this.#callers = callers
    this.#chance = chance
    this.#progress = progress
  }

  /** @param total steps that will be done, on the average; the last kill comes well before */
  async kill(times: number, total: number): Promise<void> {
    const { daemon } = this.#kubelet
    for (let done = 0; done < times; done++) {
      const at = (total * (done + this.#chance.next())) / (times + 1)
      await until('the storm goes on', () => this.#progress.steps >= at, 10 * SETTLE_MS)
      await sleep(REST_MS * this.#chance.next())
      await daemon.restart()
      await this.#callers.reconnect()
    }
  }
}

/** Removes what a client clears away by itself: sandboxes that are not ready, containers that do not run. */
async function collect(kubelet: Kubelet): Promise<void> {
  const { client } = kubelet.daemon
  const { items } = await client.runtime('ListPodSandbox', {})
  await Promise.all(
    items.filter(({ state }) => state !== 'SANDBOX_READY').map(({ id }) => kubelet.removePod(id)),
  )
  const { containers } = await client.runtime('ListContainers', {})
  await Promise.all(
    containers.filter(({ state }) => state !== 'CONTAINER_RUNNING').map(({ id }) => kubelet.remove(id)),
  )
}

async function attemptsOf(kubelet: Kubelet, pods: readonly WantedPod[]): Promise<StormResult['attempts']> {
  const { client } = kubelet.daemon
  const { items } = await client.runtime('ListPodSandbox', {})
  const { containers } = await client.runtime('ListContainers', {})
  const sum = (all: ReadonlyArray<{ metadata: { attempt: number } | null }>) =>
    all.reduce((total, { metadata }) => total + (metadata?.attempt ?? 0), 0)
  return pods.length === 0 ? { pods: 0, containers: 0 } : { pods: sum(items), containers: sum(containers) }
}

type Living = { readonly pod: TestPod; readonly ip: string; readonly container: string; readonly pid: number }

async function problemsOf(
  kubelet: Kubelet,
  pods: readonly WantedPod[],
  before: ReadonlySet<string>,
): Promise<string[]> {
  await collect(kubelet)
  const problems: string[] = []
  const living: Living[] = []
  for (const pod of pods) {
    const found = await lookAt(kubelet, pod)
    if (typeof found === 'string') problems.push(`pod ${pod.uid}: ${found}`)
    else living.push(found)
  }
  const { items } = await kubelet.daemon.client.runtime('ListPodSandbox', {})
  if (items.length !== pods.length)
    problems.push(`${items.length} pods in the list instead of ${pods.length}`)
  const { containers } = await kubelet.daemon.client.runtime('ListContainers', {})
  if (containers.length !== pods.length)
    problems.push(`${containers.length} containers in the list instead of ${pods.length}`)
  problems.push(...(await remaining(() => strangersOf(kubelet, living, before))))
  return problems
}

/** What is found again and again although it had time to go. */
async function remaining(look: () => Promise<string[]>): Promise<string[]> {
  const end = performance.now() + SETTLE_MS
  for (;;) {
    const found = await look()
    if (found.length === 0 || performance.now() > end) return found
    // Each look reads all of /proc.
    await sleep(SETTLE_MS / 60)
  }
}

/** What is there of a pod that should run, or what is wrong with it. */
async function lookAt(kubelet: Kubelet, { uid, config }: WantedPod): Promise<Living | string> {
  const { client } = kubelet.daemon
  const filter = { label_selector: { 'io.kubernetes.pod.uid': uid } }
  const { items } = await client.runtime('ListPodSandbox', { filter })
  const [sandbox, ...others] = items
  if (sandbox === undefined || others.length > 0) return `${items.length} sandboxes instead of one`
  if (sandbox.state !== 'SANDBOX_READY') return sandbox.state
  const { containers } = await client.runtime('ListContainers', { filter })
  const [container, ...more] = containers
  if (container === undefined || more.length > 0) return `${containers.length} containers instead of one`
  if (container.state !== 'CONTAINER_RUNNING') return container.state
  const pod = { id: sandbox.id, config }
  const ip = await kubelet.podIp(pod)
  const { stdout } = await kubelet.exec(container.id, 'hostname; ip -o -4 addr show dev eth0')
  if (!stdout.startsWith(`${config.hostname}\n`)) return `its host name is ${stdout}`
  if (!stdout.includes(` ${ip}/`)) return `its address is not ${ip} but in ${stdout}`
  return { pod, ip, container: container.id, pid: (await kubelet.containerInfo(container.id)).pid }
}

/** What is there beyond the time before, and belongs to none of these. */
async function strangersOf(
  kubelet: Kubelet,
  living: readonly Living[],
  before: ReadonlySet<string>,
): Promise<string[]> {
  const { daemon } = kubelet
  const there = [...(await footprint(daemon))].filter(thing => !before.has(thing))
  const ids = living.flatMap(({ pod, container }) => [pod.id, container, pod.config.metadata!.uid!])
  const pids = new Set(living.map(({ pid }) => `process ${pid}:`))
  const ips = new Set(living.map(({ ip }) => ip))
  const problems: string[] = []
  if (ips.size !== living.length) problems.push('two pods have one address')
  // Their names tell nothing of the pod: of these, the number counts.
  const links = there.filter(thing => thing.startsWith('link '))
  if (links.length !== living.length) problems.push(`${links.length} links for ${living.length} pods`)
  const rules = there.filter(thing => thing.startsWith('rule '))
  const chains = new Set(rules.flatMap(rule => rule.match(/CNI-(DN-)?[0-9a-f]{20}/g) ?? []))
  if (chains.size !== living.length) problems.push(`${chains.size} chains for ${living.length} pods`)
  const named = there.filter(thing => !/^(link|rule) /.test(thing))
  for (const thing of named) {
    const [kind, name = ''] = thing.split(' ')
    const isOurs =
      kind === 'address'
        ? ips.has(name)
        : ids.some(id => thing.includes(id)) || pids.has(`${kind} ${name}`) || isOfAll(thing, daemon.cgroup)
    if (!isOurs) problems.push(thing)
  }
  return problems
}

/** The parent of all pods' cgroups comes and goes with them. */
function isOfAll(thing: string, cgroup: string): boolean {
  return thing.startsWith('cgroup ') && thing.endsWith(cgroup)
}
