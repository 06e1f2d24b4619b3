import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { command } from '../support/command.ts'
import type { BerthDaemon } from '../support/daemon.ts'
import type { Tools } from '../support/tools.ts'
import { withDigest } from './images.ts'

export type SpecResult = {
  readonly name: string
  readonly state: 'passed' | 'failed' | 'skipped'
  /** Why it was skipped, or what failed, with what the spec wrote on the way. */
  readonly message: string
}

export type SuiteRun = {
  /** Those that the focus selects; benchmarks are none. */
  readonly specs: readonly SpecResult[]
  /** Of the order, which is random: `--seed` repeats it. */
  readonly seed: number
  readonly seconds: number
}

export type SuiteOptions = {
  /** Of the image that the suite wants by digest. */
  readonly digest: string
  /** A regular expression of spec names; '' is all. */
  readonly focus: string
  /** One spec at a time, as kubelet never does, instead of as many as halve the time. */
  readonly isSerial: boolean
  /** Further flags of critest. */
  readonly flags: readonly string[]
}

/** As many as halve the time: image specs run alone whatever the number. */
const PROCESSES = 4

/** Ten times what a run takes on an idle machine, and what one takes with one spec at a time. */
const LIMIT_MS = 600_000
const SERIAL_LIMIT_MS = 3_000_000

/** Runs critest against the daemon; what the specs say is in the result, whatever it is. */
export async function runSuite(
  daemon: BerthDaemon,
  tools: Tools,
  { digest, focus, flags, isSerial }: SuiteOptions,
): Promise<SuiteRun> {
  const directory = join(daemon.directory, 'critest')
  const critest = join(directory, 'critest.test')
  mkdirSync(directory, { recursive: true })
  writeFileSync(critest, withDigest(readFileSync(tools.critest), digest), { mode: 0o755 })
  const report = join(directory, 'report.json')
  rmSync(report, { force: true })
  const started = performance.now()
  const { stdout, stderr } = await command(
    tools.ginkgo,
    ginkgoArguments({
      directory,
      socket: daemon.socket,
      processes: isSerial ? 1 : PROCESSES,
      focus,
      flags,
    }),
    { HOME: directory, TMPDIR: directory },
    isSerial ? SERIAL_LIMIT_MS : LIMIT_MS,
  )
  if (!existsSync(report)) throw new Error(`critest wrote no report:\n${stdout.slice(-20_000)}${stderr}`)
  const seconds = (performance.now() - started) / 1000
  return { ...readReport(readFileSync(report, 'utf8')), seconds }
}

type SuitePlace = Pick<SuiteOptions, 'focus' | 'flags'> & {
  /** Where `critest.test` is and `report.json` will be. */
  readonly directory: string
  /** The daemon's. */
  readonly socket: string
  readonly processes: number
}

/** What ginkgo is called with. */
export function ginkgoArguments({ directory, socket, processes, focus, flags }: SuitePlace): string[] {
  return [
    'run',
    `--procs=${processes}`,
    '--no-color',
    '--skip=benchmark',
    ...(focus === '' ? [] : [`--focus=${focus}`]),
    `--output-dir=${directory}`,
    '--json-report=report.json',
    join(directory, 'critest.test'),
    '--',
    '-config=/dev/null',
    `-runtime-endpoint=unix://${socket}`,
    `-image-endpoint=unix://${socket}`,
    ...flags,
  ]
}

/** The part of ginkgo's JSON report (types.Report) that counts here. */
type Report = {
  readonly SuiteConfig: { readonly RandomSeed: number }
  readonly SpecReports: readonly SpecReport[] | null
}
type SpecReport = {
  readonly LeafNodeType: string
  readonly ContainerHierarchyTexts: readonly string[] | null
  readonly LeafNodeText: string
  readonly State: string
  readonly Failure?: {
    readonly Message?: string
    readonly Location?: { FileName: string; LineNumber: number }
  }
  readonly CapturedGinkgoWriterOutput?: string
}

/** @param text ginkgo's JSON report */
export function readReport(text: string): Omit<SuiteRun, 'seconds'> {
  const [suite] = JSON.parse(text) as Report[]
  if (suite === undefined) throw new Error('the report of critest holds no suite')
  const specs = (suite.SpecReports ?? []).flatMap(spec => resultOf(spec) ?? [])
  return { specs, seed: suite.SuiteConfig.RandomSeed }
}

/** undefined for what was not selected; a failure outside of a spec (BeforeSuite) counts as one. */
function resultOf(spec: SpecReport): SpecResult | undefined {
  const message = spec.Failure?.Message ?? ''
  const harmless = ['passed', 'skipped', 'pending'].includes(spec.State)
  if (harmless && (spec.LeafNodeType !== 'It' || (spec.State !== 'passed' && message === '')))
    return undefined
  const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText || spec.LeafNodeType].join(' ')
  if (spec.State === 'passed') return { name, state: 'passed', message: '' }
  if (spec.State === 'skipped') return { name, state: 'skipped', message }
  const { FileName = '', LineNumber = 0 } = spec.Failure?.Location ?? {}
  const output = spec.CapturedGinkgoWriterOutput ?? ''
  return {
    name,
    state: 'failed',
    message: `${spec.State}: ${message}\n${FileName}:${LineNumber}\n${output}`,
  }
}
