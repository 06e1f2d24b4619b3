import { spawn } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

export type Skip = { readonly test: string; readonly reason: string }

export type Outcome = {
  readonly name: string
  readonly passed: number
  readonly failed: number
  readonly skipped: readonly Skip[]
  /** What the tests want to be read also when they pass (`t.diagnostic`). */
  readonly notes: readonly string[]
  readonly seconds: number
  /** Everything it printed, for people: shown when something failed. */
  readonly output: string
}

/** What `counts.ts` writes at the end of a test file. */
export type Counts = Pick<Outcome, 'passed' | 'failed' | 'skipped' | 'notes'>

// More than any file prints; a test that loops over a log line must not fill the memory.
const MAX_OUTPUT = 16 << 20

// Children have their own process groups, so that a test that hangs ends with all it started in its session.
const running = new Set<number>()

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const pid of running) killGroup(pid)
    process.exit(130)
  })
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

/** Runs one program; its exit code counts as one test. */
export async function runProgram(
  name: string,
  args: readonly string[],
  limitSeconds: number,
): Promise<Outcome> {
  const { code, output, seconds } = await runNode(args, limitSeconds)
  return {
    name,
    passed: code === 0 ? 1 : 0,
    failed: code === 0 ? 0 : 1,
    skipped: [],
    notes: [],
    seconds,
    output,
  }
}

export type TestRun = {
  /** A path, or what to call several. */
  readonly name: string
  readonly files: readonly string[]
  /** A directory for what the reporter writes. */
  readonly scratch: string
  readonly limitSeconds: number
}

/**
 * Runs test files in one process, without node's own runner round it: that one would wait for whatever a test left
 * running with its output open.
 */
export async function runTests({ name, files, scratch, limitSeconds }: TestRun): Promise<Outcome> {
  const counted = join(scratch, `${name.replaceAll(/\W/g, '_')}.json`)
  const { code, output, seconds } = await runNode(
    [
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      `--test-reporter=${join(import.meta.dirname, 'counts.ts')}`,
      `--test-reporter-destination=${counted}`,
      ...(files.length === 1 ? files : ['--test', '--test-isolation=none', ...files]),
    ],
    limitSeconds,
  )
  const counts = readCounts(counted)
  rmSync(counted, { force: true })
  // A run that ended badly without a failing test (it crashed, or hung) is one failure; so is one without tests.
  const broken = counts.failed === 0 && (code !== 0 || counts.passed + counts.skipped.length === 0)
  const kept = files.length === 1 ? output : output.replace(/^ *✔.*\n/gm, '')
  const text = broken && code === 0 ? `${kept}\n${name} has no tests\n` : kept
  return { ...counts, failed: counts.failed + (broken ? 1 : 0), name, seconds, output: text }
}

function readCounts(path: string): Counts {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return { passed: 0, failed: 0, skipped: [], notes: [] } // killed before the end
  }
}

function runNode(
  args: readonly string[],
  limitSeconds: number,
): Promise<{ code: number | null; output: string; seconds: number }> {
  const started = performance.now()
  // Set when this driver is itself under test, where it would change what the reporters get.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'], env })
  const pid = child.pid
  if (pid === undefined) throw new Error(`${process.execPath} cannot be started`)
  running.add(pid)

  const chunks: Buffer[] = []
  let size = 0
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      if (size < MAX_OUTPUT) chunks.push(chunk)
      size += chunk.length
    })
  }
  let late = ''
  const timer = setTimeout(() => {
    late = `\nkilled: it was still running after ${limitSeconds} s\n`
    killGroup(pid)
  }, limitSeconds * 1000)

  const { promise, resolve } = Promise.withResolvers<{
    code: number | null
    output: string
    seconds: number
  }>()
  child.once('exit', code => {
    clearTimeout(timer)
    running.delete(pid)
    const finish = () => {
      clearTimeout(patience)
      child.stdout.destroy()
      child.stderr.destroy()
      const seconds = (performance.now() - started) / 1000
      resolve({ code, output: Buffer.concat(chunks).toString() + late, seconds })
    }
    // A daemon that a test left behind may hold the pipes open for ever; what the file wrote is read long before.
    const patience = setTimeout(finish, 500)
    child.once('close', finish)
  })
  return promise
}
