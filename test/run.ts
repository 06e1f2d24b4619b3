/**
 * Runs the tests: `node test/run.ts [check] [unit] [fuzz] [integration] [conformance] [guest] [PART-OF-A-PATH …]`. The last
 * line says `N passed, N failed, N skipped`; the exit code is 1 if anything failed or was left behind. `--runs N`
 * repeats the conformance suite, `--serial` runs its specs one by one, `--focus REGEX` selects specs of it. `--all` runs all of the guest tests, also those
 * that take minutes.
 */
import { globSync, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Outcome, runProgram, runTests } from './driver/files.ts'
import { leftovers, takeSnapshot } from './driver/leftovers.ts'

type Job = () => Promise<Outcome>
type Phase = {
  readonly parallel: number
  /** What all jobs need; if it fails, none is run. */
  readonly prepare?: Job
  readonly jobs: () => Job[]
}

const PREPARE_GUEST = 'test/support/guest/prepare.ts'

process.chdir(join(import.meta.dirname, '..'))
const phaseNames = ['check', 'unit', 'fuzz', 'integration', 'conformance', 'guest'] as const
const { positionals: asked, values: suite } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '1' },
    focus: { type: 'string', default: '' },
    serial: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
  },
})
if (!/^[1-9]\d?$/.test(suite.runs)) {
  console.error(`--runs ${suite.runs}: expected a number from 1 to 99`)
  process.exit(2)
}
process.env.BERTH_CONFORMANCE_RUNS = suite.runs
process.env.BERTH_CONFORMANCE_FOCUS = suite.focus
process.env.BERTH_CONFORMANCE_SERIAL = suite.serial ? '1' : ''
process.env.BERTH_GUEST_ALL = suite.all ? '1' : ''
const wanted = phaseNames.filter(name => asked.includes(name))
const filters = asked.filter(name => !(phaseNames as readonly string[]).includes(name))
const scratch = mkdtempSync(join(tmpdir(), 'berth-tests-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
const cpus = availableParallelism()

const phases: Record<(typeof phaseNames)[number], Phase> = {
  check: {
    parallel: cpus,
    jobs: () => [
      // Each takes seconds; a minute is for a machine that is busy with something else.
      program('types', 'node_modules/typescript/bin/tsc', '-p', '.'),
      program('lint and format', 'node_modules/@biomejs/biome/bin/biome', 'check', '--error-on-warnings'),
      program('dead code', 'node_modules/knip/bin/knip.js', '--no-progress'),
      ...testFiles('test/architecture/**/*.test.ts', 600),
    ],
  },
  unit: {
    // The tests of this runner mostly wait.
    parallel: cpus + 1,
    jobs: () => [...testFiles('test/{driver,support}/**/*.test.ts', 600), ...unitTests()],
  },
  fuzz: {
    parallel: cpus,
    // A second or two for each target; a busy machine takes a few times as long.
    jobs: () => testFiles('test/fuzz/**/*.test.ts', 240),
  },
  integration: {
    // One at a time: they share the machine's mounts, cgroups and ports, and what is left behind has one culprit.
    parallel: 1,
    // Grace periods and restarts add up to a minute in the longest file; a busy machine takes many times as long.
    jobs: () => testFiles('test/{integration,faults}/**/*.test.ts', 900),
  },
  guest: {
    // Each has a machine of its own, with 1.5 GiB, which keeps about one processor busy.
    parallel: Math.min(2, cpus),
    prepare: async () => {
      const outcome = await runProgram(
        'the packed program, and a machine that was booted',
        [PREPARE_GUEST],
        300,
      )
      process.env.BERTH_GUEST_PROGRAM = outcome.output
      return outcome
    },
    // Everything inside is emulated, and a busy machine emulates slowly.
    jobs: () => testFiles(`test/guest/${suite.all ? '**/' : ''}*.test.ts`, suite.all ? 3600 : 1800),
  },
  conformance: {
    parallel: 1,
    // One run of the suite takes a minute for each of the runtimes, one by one four.
    jobs: () => testFiles('test/conformance/**/*.test.ts', (suite.serial ? 3600 : 900) * Number(suite.runs)),
  },
}

function program(name: string, ...args: string[]): Job {
  // Each takes seconds on an idle machine, and twenty times as long on one that is full of daemons under test.
  return () => runProgram(name, args, 600)
}

function findFiles(pattern: string): string[] {
  return globSync(pattern)
    .filter(path => filters.length === 0 || filters.some(filter => path.includes(filter)))
    .sort()
}

/** A process for each file. */
function testFiles(pattern: string, limitSeconds: number): Job[] {
  return findFiles(pattern).map(path => () => runTests({ name: path, files: [path], scratch, limitSeconds }))
}

/**
 * As many processes as processors, each with its share of the files: starting one for each file would take longer
 * than the tests, which are meant to take 5 s in all.
 */
function unitTests(): Job[] {
  const shares = Map.groupBy(
    findFiles('{src,bench,scripts}/**/*.test.ts').entries(),
    ([index]) => index % cpus,
  )
  return [...shares.values()].map((share, index) => {
    const files = share.map(([, path]) => path)
    const name = files.length === 1 ? files[0]! : `unit tests ${index + 1}/${shares.size}`
    return () => runTests({ name, files, scratch, limitSeconds: 900 })
  })
}

async function runPhase(name: string, { parallel, prepare, jobs }: Phase): Promise<Outcome[]> {
  const queue = jobs()
  const outcomes: Outcome[] = []
  if (queue.length > 0) console.log(`\n${name}`)
  const started = performance.now()
  if (queue.length > 0 && prepare !== undefined) {
    const outcome = await prepare()
    outcomes.push(outcome)
    show(outcome)
    if (outcome.failed > 0) return outcomes
  }
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      const outcome = await job()
      outcomes.push(outcome)
      show(outcome)
    }
  }
  await Promise.all(Array.from({ length: parallel }, worker))
  if (outcomes.length > 1) console.log(`  ${outcomes.length} files and checks (${secondsSince(started)} s)`)
  return outcomes
}

function secondsSince(started: number): string {
  return ((performance.now() - started) / 1000).toFixed(1)
}

function show(outcome: Outcome): void {
  const { name, passed, failed, skipped, notes, seconds, output } = outcome
  const counts = [`${passed} passed`]
  if (failed > 0) counts.push(`${failed} failed`)
  if (skipped.length > 0) counts.push(`${skipped.length} skipped`)
  console.log(`  ${failed > 0 ? 'FAIL' : 'ok  '} ${name}: ${counts.join(', ')} (${seconds.toFixed(1)} s)`)
  for (const note of notes) console.log(`       ${note}`)
  if (failed > 0) console.log(output.replace(/^/gm, '       '))
}

async function checkLeftovers(run: () => Promise<Outcome[]>): Promise<Outcome[]> {
  const started = performance.now()
  const before = takeSnapshot()
  const outcomes = await run()
  if (outcomes.length === 0) return outcomes
  const left = await leftovers(before)
  const outcome: Outcome = {
    name: 'nothing is left behind',
    passed: left.length === 0 ? 1 : 0,
    failed: left.length === 0 ? 0 : 1,
    skipped: [],
    notes: [],
    seconds: Number(secondsSince(started)),
    output: left.join('\n'),
  }
  show(outcome)
  return [...outcomes, outcome]
}

/** Its tests have root and the real kernel. */
function usesNode(name: (typeof phaseNames)[number]): boolean {
  return name === 'integration' || name === 'conformance' || name === 'guest'
}

const outcomes: Outcome[] = []
for (const name of wanted) {
  const run = () => runPhase(name, phases[name])
  outcomes.push(...(usesNode(name) ? await checkLeftovers(run) : await run()))
}

const sum = (count: (outcome: Outcome) => number) =>
  outcomes.reduce((total, outcome) => total + count(outcome), 0)
const failed = sum(outcome => outcome.failed)
const skips = outcomes.flatMap(outcome => outcome.skipped.map(skip => ({ file: outcome.name, ...skip })))
if (skips.length > 0) console.log('\nskipped')
for (const { file, test, reason } of skips) console.log(`  ${file}: ${test} (${reason})`)
const failing = outcomes.filter(outcome => outcome.failed > 0)
if (failing.length > 0) console.log(`\nfailed\n${failing.map(outcome => `  ${outcome.name}`).join('\n')}`)
console.log(`\n${sum(outcome => outcome.passed)} passed, ${failed} failed, ${skips.length} skipped`)
if (outcomes.length === 0) console.log(`nothing to run for ${JSON.stringify(asked)}`)
process.exit(failed > 0 || outcomes.length === 0 ? 1 : 0)
