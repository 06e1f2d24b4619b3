import { createHash } from 'node:crypto'
import { globSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { type FuzzTarget, isRefusal } from './target.ts'

export type Finding = { readonly input: Buffer; readonly error: unknown }

type Bounds = { readonly seed: number; readonly runs?: number; readonly milliseconds?: number }

/** Names of all targets. */
export function targetNames(): string[] {
  return globSync('*.fuzz.ts', { cwd: import.meta.dirname })
    .map(path => basename(path, '.fuzz.ts'))
    .sort()
}

export async function loadTarget(name: string): Promise<FuzzTarget> {
  const { target } = await import(`./${name}.fuzz.ts`)
  return target
}

/** The corpus of the target first, then inputs made from `seed`: how many were tried, or the smallest that failed. */
export async function fuzz(
  target: FuzzTarget,
  corpus: readonly Buffer[],
  bounds: Bounds,
): Promise<{ readonly runs: number; readonly finding: Finding | undefined }> {
  const property = fc.asyncProperty(target.inputs, async input => {
    try {
      await target.run(input)
    } catch (error) {
      if (!isRefusal(error)) throw error
    }
  })
  const result = await fc.check(property, {
    seed: bounds.seed,
    numRuns: corpus.length + (bounds.runs ?? Number.MAX_SAFE_INTEGER),
    examples: corpus.map(input => [input]),
    ...(bounds.milliseconds === undefined ? {} : { interruptAfterTimeLimit: bounds.milliseconds }),
  })
  const input = result.counterexample?.[0]
  if (input === undefined) return { runs: result.numRuns, finding: undefined }
  const finding: Finding = { input, error: result.errorInstance }
  return { runs: result.numRuns, finding }
}

/** What a finding prints: enough to see what it is, the whole of it is in the corpus. */
export function describeFinding({ input, error }: Finding): string {
  const shown = inspect(input.toString('latin1'), { breakLength: Infinity }).replaceAll(
    /(\\x00){8,}/g,
    '…NUL…',
  )
  return `${inspect(error)}\ninput of ${input.length} bytes: ${shown.slice(0, 2000)}`
}

export function readCorpus(name: string): Buffer[] {
  const folder = corpusFolder(name)
  return filesIn(folder).map(file => readFileSync(join(folder, file)))
}

/** @returns the path of the file that the input is kept in */
export function keepInput(name: string, input: Buffer): string {
  const path = join(corpusFolder(name), createHash('sha256').update(input).digest('hex').slice(0, 16))
  mkdirSync(corpusFolder(name), { recursive: true })
  writeFileSync(path, input)
  return path
}

function corpusFolder(name: string): string {
  return join(import.meta.dirname, 'corpus', name)
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return [] // nothing has failed yet
  }
}
