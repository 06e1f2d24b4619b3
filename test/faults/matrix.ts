import { messageOf } from '../../src/base/errors.ts'
import { Missed, type Mode, notApplicable, runCase } from './cases.ts'
import { type Attempt, OPERATIONS, type Operation } from './operations.ts'
import { type Point, pointsOf } from './points.ts'
import { FaultRig } from './rig.ts'

export type Result = {
  readonly operation: string
  readonly mode: Mode
  readonly address: string
  readonly outcome: 'passed' | 'failed' | 'not applicable'
  /** Why it failed or is not applicable. */
  readonly reason: string
  readonly seconds: number
}

/** How often an operation may take a way that does not come to the point before that counts as a failure. */
const MAX_MISSES = 8

/** Which points of an operation are tried. */
export type Pick = (points: readonly Point[]) => readonly Point[]

/** Runs cases against one daemon after the other: a new one only where the last one could not be put right. */
export class Matrix {
  #rig: FaultRig | undefined
  readonly #points = new Map<string, readonly Point[]>()

  /** What another one has found out. */
  know(operation: string, points: readonly Point[]): void {
    this.#points.set(operation, points)
  }

  /** The effects of an operation that meets no fault. */
  async points(operation: Operation): Promise<readonly Point[]> {
    const known = this.#points.get(operation.name)
    if (known !== undefined) return known
    const rig = await this.#ready()
    rig.plan('')
    const attempt = await operation.prepare(rig)
    await rig.quiet()
    rig.plan('')
    await attempt.call(rig.daemon.client)
    await rig.quiet()
    const points = pointsOf(rig.traced().effects)
    await attempt.check()
    await rig.clear()
    this.#points.set(operation.name, points)
    return points
  }

  async *run(operation: Operation, mode: Mode, pick: Pick = points => points): AsyncGenerator<Result> {
    if (operation.skip !== false) {
      yield resultOf(operation, mode, '', 'not applicable', operation.skip)
      return
    }
    let points: readonly Point[]
    try {
      points = pick(await this.points(operation))
    } catch (error) {
      if (this.#rig !== undefined) await this.#renew(this.#rig)
      yield resultOf(operation, mode, '', 'failed', `without a fault: ${messageOf(error)}`)
      return
    }
    for (const point of points) yield await this.#case(operation, mode, point)
  }

  async #case(operation: Operation, mode: Mode, point: Point): Promise<Result> {
    const started = performance.now()
    const done = (outcome: Result['outcome'], reason = '') =>
      resultOf(operation, mode, point.address, outcome, reason, (performance.now() - started) / 1000)
    for (let misses = 1; ; misses++) {
      const unfit = notApplicable(mode, operation, point)
      if (unfit !== undefined) return done('not applicable', unfit)
      const rig = await this.#ready()
      const logged = rig.daemon.log.length
      try {
        await runCase(rig, await prepared(rig, operation, point), point, mode)
        return done('passed')
      } catch (error) {
        const log = rig.daemon.log.slice(logged)
        await this.#renew(rig)
        if (error instanceof Missed && misses < MAX_MISSES) continue
        return done('failed', `${messageOf(error)}\n--- the daemon's log\n${log.slice(-6000)}`)
      }
    }
  }

  async #ready(): Promise<FaultRig> {
    this.#rig ??= await FaultRig.start()
    return this.#rig
  }

  async #renew(rig: FaultRig): Promise<void> {
    try {
      await rig.renew()
    } catch {
      this.#rig = undefined
      await rig[Symbol.asyncDispose]()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rig?.[Symbol.asyncDispose]()
  }
}

/** What is deleted for the case before is no effect of this one. */
async function prepared(rig: FaultRig, operation: Operation, { address }: Point): Promise<Attempt> {
  rig.plan('')
  const attempt = await operation.prepare(rig)
  if (address.includes('/bin/rm')) await rig.quiet()
  return attempt
}

function resultOf(
  operation: Operation,
  mode: Mode,
  address: string,
  outcome: Result['outcome'],
  reason = '',
  seconds = 0,
): Result {
  return { operation: operation.name, mode, address, outcome, reason, seconds }
}

/** @throws Error that lists them, for a name that is none */
export function operationOf(name: string): Operation {
  const found = OPERATIONS.find(operation => operation.name === name)
  if (found === undefined) {
    throw new Error(`no operation ${name}; there are: ${OPERATIONS.map(known => known.name).join(', ')}`)
  }
  return found
}
