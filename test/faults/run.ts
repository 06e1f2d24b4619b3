/**
 * The whole matrix of faults: every operation, every effect of it, every way in which it can fail. `npm run test:faults
 * -- [--operation REGEX] [--mode kill,fail] [--point TEXT] [--every N] [--workers N]`. `--every 4` tries a quarter of
 * the points, other ones in each mode. `--results FILE` keeps the outcomes, and tries only what has not passed by that
 * file; `--docs` puts the table of it into docs/testing.md. `--effects` writes down what effects each operation has.
 * Ends with a table of counts; the exit code is 1 if a case failed.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { MODES, type Mode } from './cases.ts'
import { EFFECTS } from './effects.ts'
import { Matrix, operationOf, type Result } from './matrix.ts'
import { OPERATIONS } from './operations.ts'
import type { Point } from './points.ts'
import { ResultFile } from './results.ts'
import { markdownOf, tableOf } from './table.ts'

type Job = {
  readonly operation: string
  readonly mode: Mode
  /** Of the operation, if a worker has found them out. */
  points?: readonly Point[]
}

type Answer = Result | { readonly operation: string; readonly points: readonly Point[] } | 'idle'

const { values } = parseArgs({
  options: {
    operation: { type: 'string', default: '' },
    mode: { type: 'string', default: MODES.join(',') },
    point: { type: 'string', default: '' },
    every: { type: 'string', default: '1' },
    workers: { type: 'string', default: '2' },
    results: { type: 'string', default: '' },
    docs: { type: 'boolean', default: false },
    effects: { type: 'boolean', default: false },
    worker: { type: 'boolean', default: false },
  },
})

function jobs(): Job[] {
  const modes = values.mode.split(',').map(name => {
    const mode = MODES.find(known => known === name)
    if (mode === undefined) throw new Error(`--mode ${name}: expected some of ${MODES.join(', ')}`)
    return mode
  })
  const chosen = OPERATIONS.filter(({ name }) => new RegExp(values.operation).test(name))
  if (chosen.length === 0) throw new Error(`--operation ${values.operation}: no operation has such a name`)
  return modes.flatMap(mode => chosen.map(({ name }) => ({ operation: name, mode })))
}

async function lead(): Promise<void> {
  const queue = jobs()
  const file = new ResultFile(values.results)
  const fresh: Result[] = []
  const started = performance.now()
  const count = Number(values.workers)
  if (!Number.isInteger(count) || count < 1 || count > 16) throw new Error('--workers: expected 1 to 16')
  await Promise.all(
    Array.from({ length: Math.min(count, queue.length) }, () =>
      workThrough(queue, result => {
        fresh.push(result)
        file.add(result)
      }),
    ),
  )
  const results = values.results === '' ? fresh : file.read()
  const failed = results.filter(({ outcome }) => outcome === 'failed')
  console.log(`\n${tableOf(results)}`)
  for (const { operation, mode, address } of failed) console.log(`failed: ${operation}, ${mode}@${address}`)
  const seconds = Math.round((performance.now() - started) / 1000)
  if (values.docs) writeTable(results)
  console.log(`${results.length} cases, ${failed.length} failed, ${seconds} s`)
  process.exitCode = failed.length > 0 || results.length === 0 ? 1 : 0
}

const known = new Map<string, readonly Point[]>()

async function workThrough(queue: Job[], onResult: (result: Result) => void): Promise<void> {
  const child = fork(import.meta.filename, ['--worker', ...process.argv.slice(2)])
  for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
    const points = known.get(job.operation)
    await runIn(child, points === undefined ? job : { ...job, points }, onResult)
  }
  child.send('done')
  await new Promise(resolve => child.once('exit', resolve))
}

/** @throws Error if the worker ends before its job */
function runIn(child: ChildProcess, job: Job, onResult: (result: Result) => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const onMessage = (message: Answer) => {
    if (message === 'idle') return finish()
    if ('points' in message) return known.set(message.operation, message.points)
    onResult(message)
    show(message)
  }
  const onExit = (code: number | null) => reject(new Error(`a worker ended with ${code}`))
  const finish = () => {
    child.off('message', onMessage).off('exit', onExit)
    resolve()
  }
  child.on('message', onMessage).on('exit', onExit)
  child.send(job)
  return promise
}

function show({ operation, mode, address, outcome, reason, seconds }: Result): void {
  if (outcome === 'not applicable') return
  const mark = outcome === 'passed' ? 'ok  ' : 'FAIL'
  console.log(`${mark} ${operation}, ${mode}@${address} (${seconds.toFixed(1)} s)`)
  if (outcome === 'failed') console.log(reason.replace(/^/gm, '       '))
}

/** The sample does without: what an operation meets may differ between machines. */
function assertWrittenDown(operation: string, points: readonly Point[]): void {
  const known = EFFECTS[operation] ?? []
  const unknown = points.map(({ name }) => name).filter(name => !known.includes(name))
  if (unknown.length > 0) throw new Error(`effects.ts has no ${unknown.join(', ')}: --effects writes it anew`)
}

async function work(): Promise<void> {
  const every = Number(values.every)
  if (!Number.isInteger(every) || every < 1) throw new Error('--every: expected a number from 1')
  const results = new ResultFile(values.results)
  const matrix = new Matrix()
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  process.on('message', async (job: Job | 'done') => {
    if (job === 'done') return resolve()
    if (job.points !== undefined) matrix.know(job.operation, job.points)
    const pick = (points: readonly Point[]) => {
      assertWrittenDown(job.operation, points)
      process.send?.({ operation: job.operation, points } satisfies Answer)
      const settled = results.settled(job.operation, job.mode)
      return points.filter(
        ({ address }, index) =>
          !settled.has(address) &&
          address.includes(values.point) &&
          (index + MODES.indexOf(job.mode)) % every === 0,
      )
    }
    for await (const result of matrix.run(operationOf(job.operation), job.mode, pick)) process.send?.(result)
    process.send?.('idle')
  })
  await ended
  await matrix[Symbol.asyncDispose]()
  process.disconnect()
}

const TABLE = /(<!-- table of faults -->\n).*(<!-- end of the table -->)/s

function writeTable(results: readonly Result[]): void {
  const path = join(import.meta.dirname, '../../docs/testing.md')
  const text = readFileSync(path, 'utf8')
  writeFileSync(
    path,
    text.replace(TABLE, (_, begin, end) => `${begin}${markdownOf(results)}\n${end}`),
  )
}

/** Writes `effects.ts` anew; `npm run format` makes it look as before. */
async function writeEffects(): Promise<void> {
  await using matrix = new Matrix()
  const names = Object.fromEntries(OPERATIONS.map(({ name }) => [name, EFFECTS[name] ?? []]))
  for (const operation of OPERATIONS) {
    const { name } = operation
    if (operation.skip !== false || !new RegExp(values.operation).test(name)) continue
    const points = await matrix.points(operation)
    names[name] = [...new Set(points.map(point => point.name))].sort()
    console.log(`${name}: ${points.length} points`)
    for (const { kind, address } of points) console.log(`  ${kind} ${address}`)
    write(names)
  }
}

function write(names: Record<string, readonly string[]>): void {
  const file = join(import.meta.dirname, 'effects.ts')
  const text = readFileSync(file, 'utf8')
  const head = text.slice(0, text.indexOf('= {') + 2)
  writeFileSync(file, `${head}${JSON.stringify(names, undefined, 2)}\n`)
}

if (values.worker) await work()
else if (values.effects) await writeEffects()
else await lead()
