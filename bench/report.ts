import { standing } from './measure-standing.ts'
import type { Handler, PeerName } from './peer.ts'
import { median, quantile, type Samples } from './statistics.ts'

type Unit = 'ms' | 's' | 'MiB' | '/s' | 'MB/s'

/** Berth's median, as a multiple of a peer's or as a value, must not exceed these; with a rate not fall below. */
type Reach = { readonly containerd?: number; readonly floor?: number; readonly value?: number }

type Row = {
  readonly measure: string
  readonly title: string
  readonly unit: Unit
  readonly reach?: Reach
}

const PEERS: readonly PeerName[] = ['floor', 'containerd', 'Berth']
const PULLERS: readonly PeerName[] = ['floor', 'skopeo', 'containerd', 'Berth']

function podRows(handler: Handler, withReach: boolean): Row[] {
  const rows: Row[] = [
    { measure: 'up, 1', title: 'pod up, 1 at a time', unit: 'ms', reach: { containerd: 0.5, floor: 1.6 } },
    { measure: 'down, 1', title: 'pod down, 1 at a time', unit: 'ms' },
    { measure: 'up, 8', title: 'pod up, 8 at a time', unit: 'ms' },
    { measure: 'down, 8', title: 'pod down, 8 at a time', unit: 'ms' },
    { measure: 'up/s', title: 'pods up, 8 at a time', unit: '/s', reach: { containerd: 2 } },
    { measure: 'down/s', title: 'pods down, 8 at a time', unit: '/s' },
    { measure: 'exec, 1', title: 'ExecSync `true`, 1 at a time', unit: 'ms', reach: { containerd: 1 } },
    { measure: 'exec, 8', title: 'ExecSync `true`, 8 at a time', unit: 'ms', reach: { containerd: 1 } },
    { measure: 'daemon cpu', title: "CPU of the daemon's own process, per pod up and down", unit: 'ms' },
  ]
  return rows.map(({ reach, ...row }) => ({
    ...row,
    measure: `${handler} ${row.measure}`,
    ...(reach === undefined || !withReach ? {} : { reach }),
  }))
}

function stepRows(handler: Handler): Row[] {
  const up = ['RunPodSandbox', 'CreateContainer', 'StartContainer']
  const down = ['StopContainer', 'StopPodSandbox', 'RemoveContainer', 'RemovePodSandbox']
  return [...up, ...down].map(step => ({ measure: `${handler} ${step}`, title: step, unit: 'ms' }))
}

const STANDING: readonly Row[] = [
  { measure: 'version', title: 'Version', unit: 'ms' },
  { measure: 'list pods', title: 'ListPodSandbox', unit: 'ms' },
  { measure: 'list containers', title: 'ListContainers', unit: 'ms', reach: { value: 1.5 } },
  { measure: 'container stats', title: 'ListContainerStats', unit: 'ms' },
  { measure: 'pod stats', title: 'ListPodSandboxStats', unit: 'ms' },
  { measure: 'daemon rss', title: 'memory of the daemon, RSS', unit: 'MiB', reach: { value: 130 } },
  { measure: 'daemon pss', title: 'memory of the daemon, PSS', unit: 'MiB' },
  {
    measure: 'all pss',
    title: 'daemon, monitors and pauses together, PSS',
    unit: 'MiB',
    reach: { containerd: 0.5 },
  },
  { measure: 'restart', title: 'SIGKILL until all are listed as running', unit: 's', reach: { value: 1 } },
]

function standingRows(pods: number, withReach: boolean): Row[] {
  return STANDING.map(({ reach, ...row }) => ({
    ...row,
    measure: standing(pods, row.measure),
    ...(reach === undefined || !withReach ? {} : { reach }),
  }))
}

function pullRows(name: string, title: string, reach: Reach): Row[] {
  return [
    { measure: `pull ${name}`, title: `${title}, until it returns`, unit: 's' },
    { measure: `pull ${name}, synced`, title: `${title}, and a sync`, unit: 's', reach },
    { measure: `pull ${name}, cpu`, title: `${title}, processor time`, unit: 's' },
  ]
}

const STREAMING: readonly Row[] = [
  {
    measure: 'exec first byte',
    title: 'Exec until its first byte arrives',
    unit: 'ms',
    reach: { containerd: 1 },
  },
  { measure: 'exec stdout', title: 'standard output of an exec', unit: 'MB/s', reach: { containerd: 1 } },
  { measure: 'exec stdin', title: 'standard input of an exec', unit: 'MB/s' },
  { measure: 'forward', title: 'one connection of a port-forward', unit: 'MB/s', reach: { containerd: 1 } },
  { measure: 'sessions', title: '50 execs at once, 1 MiB each', unit: 's' },
  {
    measure: 'streams',
    title: '200 streams (100 connections of a port-forward) at once, 1 MiB each',
    unit: 's',
  },
  {
    measure: 'download growth',
    title: 'growth of the daemon in a download that stops, crawls and runs',
    unit: 'MiB',
    reach: { value: 20 },
  },
]

const PULLS: readonly Row[] = [
  ...pullRows('six', '6 layers, 300 MB', { containerd: 0.6 }),
  ...pullRows('one new', 'one of the 6 layers new', { containerd: 0.5 }),
  ...pullRows('forty', '40 small layers', { containerd: 0.7 }),
]

const PULLING: readonly Row[] = [
  {
    measure: 'pulling rss',
    title: 'most memory of the daemon during a pull of 5 GB, RSS',
    unit: 'MiB',
    reach: { value: 200 },
  },
  { measure: 'pulling workers rss', title: 'of all its children beside it, RSS', unit: 'MiB' },
  { measure: 'pulling p50', title: 'calls while two pulls run, median', unit: 'ms' },
  {
    measure: 'pulling p99',
    title: 'calls while two pulls run, 99th percentile',
    unit: 'ms',
    reach: { value: 25 },
  },
]

export type ReportOptions = {
  readonly handlers: readonly Handler[]
  readonly pods: readonly number[]
  readonly machine: readonly string[]
}

type Table = [title: string, rows: readonly Row[], peers?: typeof PEERS]

/** The tables in Markdown, ending in a line feed; without those of which nothing was measured. */
export function report(samples: Samples, { handlers, pods, machine }: ReportOptions): string {
  const tables: Table[] = [
    ...handlers.flatMap((handler): Table[] => [
      [`Pods, ${handler}`, podRows(handler, handler === 'runc')],
      [`The calls behind them, 1 at a time, ${handler}`, stepRows(handler)],
    ]),
    ...pods.map((count, index): Table => [`With ${count} pods`, standingRows(count, index === 0)]),
    ['Streaming, runc', STREAMING],
    ['Pulls', PULLS, PULLERS],
    ['A daemon that pulls', PULLING],
  ]
  const measured = tables.filter(([, rows, peers = PEERS]) =>
    rows.some(({ measure }) => peers.some(peer => samples.of(measure, peer).length > 0)),
  )
  const parts = [machine.map(fact => `- ${fact}`).join('\n')]
  for (const [title, rows, peers] of measured) parts.push(`### ${title}`, table(samples, rows, peers))
  return `${parts.join('\n\n')}\n`
}

function table(samples: Samples, rows: readonly Row[], peers = PEERS): string {
  const head = ['', ...peers, 'Berth : containerd', 'Berth : floor', 'reach']
  const lines = [`| ${head.join(' | ')} |`, `|${'---|'.repeat(head.length)}`]
  return [...lines, ...rows.map(row => tableRow(samples, row, peers))].join('\n')
}

function tableRow(samples: Samples, row: Row, peers: readonly PeerName[]): string {
  const cells = peers.map(peer => cell(samples.of(row.measure, peer), row.unit))
  const ratios = (['containerd', 'floor'] as const).map(peer => {
    const value = ratio(samples, row, peer)
    return value === undefined ? '' : value.toFixed(2)
  })
  const columns = [`${row.title}, ${row.unit}`, ...cells, ...ratios, verdict(samples, row)]
  return `| ${columns.join(' | ')} |`
}

/** Median, and the 95th percentile where it says something. */
function cell(values: readonly number[], unit: Unit): string {
  if (values.length === 0) return ''
  const middle = digits(median(values))
  return unit === 'ms' && values.length >= 20 ? `${middle} (${digits(quantile(values, 0.95))})` : middle
}

function digits(value: number): string {
  if (value >= 100) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function ratio(samples: Samples, row: Row, peer: PeerName): number | undefined {
  const [own, other] = [samples.of(row.measure, 'Berth'), samples.of(row.measure, peer)]
  return own.length === 0 || other.length === 0 ? undefined : median(own) / median(other)
}

/** Each limit, and whether it was kept. */
function verdict(samples: Samples, row: Row): string {
  const { reach = {}, unit } = row
  const own = samples.of(row.measure, 'Berth')
  const limits: Array<[text: string, limit: number, actual: number | undefined]> = []
  for (const peer of ['containerd', 'floor'] as const) {
    const limit = reach[peer]
    if (limit !== undefined) limits.push([`${limit} × ${peer}`, limit, ratio(samples, row, peer)])
  }
  if (reach.value !== undefined) {
    limits.push([`${reach.value} ${unit}`, reach.value, own.length === 0 ? undefined : median(own)])
  }
  const atLeast = unit.endsWith('/s')
  return limits
    .map(([text, limit, actual]) => `${atLeast ? '≥' : '≤'} ${text}${mark(actual, limit, atLeast)}`)
    .join(', ')
}

function mark(actual: number | undefined, limit: number, atLeast: boolean): string {
  if (actual === undefined) return ''
  const kept = atLeast ? actual >= limit : actual <= limit
  return kept ? ' ✓' : ' **missed**'
}
