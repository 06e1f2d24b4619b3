/**
 * `npm run test:soak [-- --minutes N] [--pods N] [--kills N] [--seed S]`: storms until the time is up (docs/testing.md).
 * The exit code is 1 if anything was left, wrong or grew.
 */
import { randomInt } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { BerthDaemon } from '../support/daemon.ts'
import { busyboxImage } from '../support/images.ts'
import { BUSYBOX, Kubelet } from '../support/kubelet.ts'
import { Chance } from './chance.ts'
import { type Figures, figuresOf, median } from './figures.ts'
import { slowNetwork } from './slow-network.ts'
import { type StormOptions, type StormResult, storm } from './storm.ts'
import { Traffic, type TrafficCounts } from './traffic.ts'

/** Part of the time in which one daemon lives from the first round to the last. */
const STEADY_SHARE = 0.5
/** At most so many pods in a round of that part: many rounds tell more than large ones. */
const STEADY_PODS = 25
const STEADY_AT_A_TIME = 10
/** Rounds of that part in which code is compiled and caches are filled. */
const WARM_UP = 2
/** At least so many rounds follow, however slow the machine is. */
const MEASURED = 4
/** Part by which a figure may be larger in the end than after the warm-up. */
const TOLERANCE = 0.05

const GIVEN_UP = 0.3

type Round = {
  readonly retry: StormOptions['retry']
  readonly result: StormResult
  readonly left: readonly string[]
  readonly figures: Figures
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    pods: { type: 'string', default: '100' },
    kills: { type: 'string', default: '5' },
    seed: { type: 'string' },
  },
})
const [minutes, pods, kills] = [values.minutes, values.pods, values.kills].map(Number) as [
  number,
  number,
  number,
]
const seed = Number(values.seed ?? randomInt(2 ** 31))
if (
  !(minutes > 0) ||
  !(pods >= 1 && pods <= 200) ||
  !(kills >= 1 && kills <= 100) ||
  !Number.isInteger(seed)
) {
  console.error('test:soak: expected --minutes N, --pods 1 to 200, --kills 1 to 100 and --seed S')
  process.exit(2)
}
const chance = new Chance(seed)
const steadyPods = Math.min(pods, STEADY_PODS)
const problems: string[] = []

async function withKubelet<T>(label: string, work: (kubelet: Kubelet) => Promise<T>): Promise<T> {
  // Full after the warm-up: what is kept of the steps of 20000 would grow for as long as this runs, and then no more.
  const config = () => '[crio.observe]\ntimeline_entries = 1000\n'
  await using daemon = await BerthDaemon.start({ label, config })
  const kubelet = new Kubelet(daemon)
  daemon.registry.push(await busyboxImage(), 'docker.io/library/busybox', 'latest')
  await kubelet.pull(BUSYBOX)
  return await work(kubelet)
}

/** A storm with traffic beside it, then nothing: what is left, and what the daemon takes. */
async function round(kubelet: Kubelet, options: StormOptions): Promise<Round & { traffic: TrafficCounts }> {
  const { daemon } = kubelet
  const traffic = await Traffic.start(kubelet, chance.fork(options.seed))
  const result = await storm(kubelet, options, () => traffic.end())
  await kubelet.removeAll()
  const left = await daemon.leftovers()
  const figures = await figuresOf(daemon.pid)
  const { retry } = options
  const wrong = [...result.problems, ...result.counts.refused, ...traffic.problems]
  problems.push(...wrong.map(problem => `seed ${options.seed}: ${problem}`))
  problems.push(...left.map(thing => `seed ${options.seed}: left after the removal: ${thing}`))
  return { retry, result, left, figures, traffic: traffic.counts }
}

function optionsOf(index: number, rest: Pick<StormOptions, 'pods' | 'kills'>): StormOptions {
  const retry = index % 2 === 0 ? 'looks' : 'repeats'
  return { seed: Math.floor(chance.next() * 2 ** 31), retry, givenUp: GIVEN_UP, ...rest }
}

const HEAD =
  'round  client   pods kills  calls given-up unanswered lost  again(pod/ctr)     s   left wrong |  RSS   anon   heap  fds thr'

function show(index: number, options: StormOptions, { retry, result, left, figures }: Round): void {
  const { counts, attempts, seconds } = result
  const cells = [
    String(index + 1).padStart(5),
    retry.padEnd(8),
    String(options.pods).padStart(4),
    String(options.kills).padStart(5),
    String(counts.calls).padStart(6),
    String(counts.givenUp).padStart(8),
    String(counts.unanswered).padStart(10),
    String(counts.lostAnswers).padStart(4),
    `${attempts.pods}/${attempts.containers}`.padStart(15),
    seconds.toFixed(0).padStart(5),
    String(left.length).padStart(6),
    String(result.problems.length + counts.refused.length).padStart(5),
    '|',
    figures.rss.toFixed(1).padStart(5),
    figures.anonymous.toFixed(1).padStart(6),
    figures.heap.toFixed(2).padStart(6),
    String(figures.descriptors).padStart(4),
    String(figures.threads).padStart(3),
  ]
  console.log(cells.join(' '))
}

/** Rounds of one daemon: what it takes in the end against what it took after the warm-up. */
async function steady(end: number): Promise<void> {
  console.log(
    `\none daemon, no kills: ${steadyPods} pods, ${STEADY_AT_A_TIME} at a time (the first ${WARM_UP} rounds warm it up)\n${HEAD}`,
  )
  await withKubelet('soak', async kubelet => {
    const rounds: Round[] = []
    const totals: Record<string, number> = {}
    while (rounds.length < WARM_UP + MEASURED || performance.now() < end) {
      const options = {
        ...optionsOf(rounds.length, { pods: steadyPods, kills: 0 }),
        atATime: STEADY_AT_A_TIME,
      }
      const next = await round(kubelet, options)
      for (const [name, count] of Object.entries(next.traffic)) totals[name] = (totals[name] ?? 0) + count
      show(rounds.length, options, next)
      rounds.push(next)
    }
    console.log(
      `beside it: ${Object.entries(totals)
        .map(([name, count]) => `${count} ${name}`)
        .join(', ')}`,
    )
    compare(rounds.slice(WARM_UP).map(({ figures }) => figures))
  })
}

/** The medians of the first and of the last third: a single look at resident memory varies by itself. */
function compare(measured: readonly Figures[]): void {
  const third = Math.max(1, Math.floor(measured.length / 3))
  for (const name of ['rss', 'anonymous', 'heap', 'descriptors', 'threads'] as const) {
    const all = measured.map(figures => figures[name])
    const [first, last] = [median(all.slice(0, third)), median(all.slice(-third))]
    const change = last / first - 1
    const verdict = change > TOLERANCE ? 'GROWS' : 'flat'
    console.log(
      `${name.padEnd(12)} ${first.toFixed(2).padStart(8)} → ${last.toFixed(2).padStart(8)}  ${(change * 100).toFixed(1).padStart(6)} %  ${verdict}`,
    )
    if (change > TOLERANCE) problems.push(`${name} grew from ${first.toFixed(2)} to ${last.toFixed(2)}`)
  }
}

/** As long as a network plugin may well take on a node that has just booted. */
const SLOW_SECONDS = 20

async function slow(): Promise<void> {
  console.log(`\na network plugin that takes ${SLOW_SECONDS} s, clients that give up after 1 ms to 5 s`)
  await withKubelet('slow', async kubelet => {
    const { ran, removed, problems: wrong } = await slowNetwork(kubelet, SLOW_SECONDS)
    for (const [name, all] of Object.entries({ RunPodSandbox: ran, RemovePodSandbox: removed })) {
      const each = all.map(({ calls, seconds }) => `${calls} calls in ${seconds.toFixed(1)} s`)
      console.log(`${name}: ${each.join(', ')}`)
    }
    await kubelet.removeAll()
    problems.push(...wrong, ...(await kubelet.daemon.leftovers()).map(thing => `left: ${thing}`))
  })
}

async function killed(end: number): Promise<void> {
  console.log(`\nthe daemon killed ${kills} times a round: ${pods} pods, all at once\n${HEAD}`)
  await withKubelet('storm', async kubelet => {
    for (let index = 0; index < 2 || performance.now() < end; index++) {
      const options = optionsOf(index, { pods, kills })
      show(index, options, await round(kubelet, options))
    }
  })
}

console.log(
  `seed ${seed}, ${minutes} minutes, ${availableParallelism()} processors, ${GIVEN_UP * 100} % of the calls given up`,
)
const started = performance.now()
await slow()
await steady(started + minutes * 60_000 * STEADY_SHARE)
await killed(started + minutes * 60_000)
console.log(
  problems.length === 0
    ? `\nnothing left, nothing wrong, nothing grew (${((performance.now() - started) / 60_000).toFixed(1)} minutes)`
    : `\n${problems.length} problems:\n${problems.join('\n')}`,
)
process.exit(problems.length === 0 ? 0 : 1)
