import assert from 'node:assert/strict'
import { sleep } from '../../src/base/clock.ts'
import { BerthError, messageOf } from '../../src/base/errors.ts'
import { crashed } from '../support/daemon.ts'
import { footprint } from '../support/footprint.ts'
import { until } from '../support/wait.ts'
import { assertInvariants, everything } from './invariants.ts'
import { type Attempt, type Operation, START, WIPE } from './operations.ts'
import type { Point } from './points.ts'
import { type FaultRig, isDeath } from './rig.ts'

/**
 * What goes wrong at a point of an operation:
 *
 * - `kill`: SIGKILL; the client makes the same call again
 * - `relist`: SIGKILL; the client has forgotten the call and goes by what is listed
 * - `fail`: the effect fails, once
 * - `errno`: the same, with an errno as the kernel would give
 * - `failfrom`: it fails every time from then on, until it heals or the daemon is started again
 * - `failall`: from then on everything fails, until the daemon is started again
 * - `hang`: it does not come to an end; the client gives up
 */
export const MODES = ['kill', 'relist', 'fail', 'errno', 'failfrom', 'failall', 'hang'] as const
export type Mode = (typeof MODES)[number]

/** Why a mode says nothing about an operation, or about a point of it. */
export function notApplicable(mode: Mode, operation: Operation, point: Point): string | undefined {
  if (mode === 'relist' && !operation.relists) {
    return 'a client that finds the thing listed makes the same call again'
  }
  if (mode === 'hang' && point.kind === 'sync') {
    return 'a system call that does not come back holds up the whole daemon, which its watchdog ends: see kill'
  }
  if (mode === 'hang' && operation.name === START) {
    return 'a start that does not come to an end is killed by who started it: see kill'
  }
  if (mode === 'hang' && operation.name === WIPE) {
    return 'a command that does not come to an end is killed by who gave it: see kill'
  }
  return undefined
}

/** The operation took another way this time and never came to the point. */
export class Missed extends Error {}

/** @throws Error that says what was lost or left, or Missed */
export async function runCase(rig: FaultRig, attempt: Attempt, point: Point, mode: Mode): Promise<void> {
  if (mode === 'kill' || mode === 'relist') await dieAt(rig, attempt, point, mode)
  else if (mode === 'fail' || mode === 'errno') await failOnce(rig, attempt, point, mode)
  else if (mode === 'failfrom') await failOn(rig, attempt, point)
  else if (mode === 'failall') await failAll(rig, attempt, point)
  else await hang(rig, attempt, point)
  await attempt.check()
  await assertNothingIsLeft(rig)
}

async function assertNothingIsLeft(rig: FaultRig): Promise<void> {
  await rig.clear()
  assert.deepEqual(await rig.daemon.leftovers(), [], 'nothing is left when everything was removed')
}

type Outcome = { readonly error: unknown } | undefined

async function settle(call: Promise<void>): Promise<Outcome> {
  try {
    await call
    return undefined
  } catch (error) {
    return { error }
  }
}

async function dieAt(rig: FaultRig, attempt: Attempt, { address }: Point, mode: 'kill' | 'relist') {
  const { daemon } = rig
  rig.plan(`kill@${address}`)
  const outcome = await settle(attempt.call(daemon.client))
  if (outcome !== undefined && !isDeath(outcome.error)) throw outcome.error
  await struck(rig)
  await crashed(daemon)
  rig.plan('')
  await daemon.up()
  await assertInvariants(rig)
  if (mode === 'relist') {
    if (outcome !== undefined) await attempt.relist?.()
    return
  }
  await assertRecoveredOnce(rig)
  await again(rig, attempt, outcome)
}

/** What one recovery has made of it, another one leaves as it is. */
async function assertRecoveredOnce(rig: FaultRig): Promise<void> {
  const seen = await everything(rig)
  const there = await footprint(rig.daemon)
  await rig.daemon.restart()
  assert.deepEqual(await everything(rig), seen, 'a second recovery changes nothing that clients see')
  let difference: string[] = []
  await until('a second recovery changes nothing', async () => {
    const now = await footprint(rig.daemon)
    difference = [...[...now].filter(one => !there.has(one)), ...[...there].filter(one => !now.has(one))]
    return difference.length === 0
  }).catch(() =>
    assert.deepEqual(difference, [], 'a second recovery changes nothing in the kernel or on disk'),
  )
}

async function failOnce(rig: FaultRig, attempt: Attempt, { name, address }: Point, mode: 'fail' | 'errno') {
  rig.plan(mode === 'fail' ? `fail@${address}` : `fail@${address}:${errnoFor(name)}`)
  const outcome = await settle(attempt.call(rig.daemon.client))
  await struck(rig)
  assertClear(outcome)
  await assertAlive(rig, attempt, outcome)
  rig.plan('')
  if (attempt.isStart || attempt.isOffline) await rig.daemon.restart()
  await assertHealed(rig, attempt, outcome)
}

async function failOn(rig: FaultRig, attempt: Attempt, { name, address }: Point): Promise<void> {
  rig.plan(`failfrom@${address}:${errnoFor(name)}`)
  using patient = attempt.isStart ? undefined : await rig.client(PATIENT_MS)
  const client = patient ?? rig.daemon.client
  let outcome = await settle(attempt.call(client))
  await struck(rig)
  assertClear(outcome)
  if (outcome !== undefined) {
    outcome = await settle(attempt.retry?.() ?? attempt.call(client))
    assertClear(outcome)
  }
  await assertAlive(rig, attempt, outcome)
  await recover(rig, attempt, address)
  await assertHealed(rig, attempt, outcome)
}

/** Half of the points heal while the daemon runs; for the others, and for what failed in a start, it is started again. */
async function recover(rig: FaultRig, attempt: Attempt, address: string): Promise<void> {
  rig.plan('')
  if (attempt.isStart || attempt.isOffline || address.length % 2 === 1) await rig.daemon.restart()
}

async function failAll(rig: FaultRig, attempt: Attempt, { address }: Point): Promise<void> {
  rig.plan(`failall@${address}`)
  using patient = attempt.isStart ? undefined : await rig.client(PATIENT_MS)
  const client = patient ?? rig.daemon.client
  const outcome = await settle(attempt.call(client))
  await struck(rig)
  assertClear(outcome)
  await assertAlive(rig, attempt, outcome)
  rig.plan('')
  await rig.daemon.restart()
  await assertHealed(rig, attempt, outcome)
}

/** Of a client that waits for what is tried again, but not for ever: an exit that cannot be recorded. */
const PATIENT_MS = 10_000
/** Of a client that does not wait for what hangs. */
const IMPATIENT_MS = 2_500
/** An answer from memory is there within, however busy the machine. */
const LIST_MS = 20_000

async function hang(rig: FaultRig, attempt: Attempt, { address }: Point): Promise<void> {
  rig.plan(`hang@${address}`)
  using impatient = await rig.client(IMPATIENT_MS)
  const outcome = await settle(attempt.call(impatient))
  await struck(rig)
  assertClear(outcome)
  using other = await rig.client(LIST_MS)
  await other.runtime('ListPodSandbox', {})
  await other.runtime('ListContainers', {})
  await other.image('ListImages', {})
  if (outcome !== undefined) assertClear(await settle(attempt.call(impatient)))
  await assertAlive(rig, attempt, outcome)
  await recover(rig, attempt, address)
  await assertHealed(rig, attempt, outcome)
}

/** What is there belongs to somebody, and the call succeeds, which for a repair has to come first. */
async function assertHealed(rig: FaultRig, attempt: Attempt, outcome: Outcome): Promise<void> {
  if (attempt.isRepair) await again(rig, attempt, outcome)
  await assertInvariants(rig)
  if (!attempt.isRepair) await again(rig, attempt, outcome)
}

/** The call once more, unless its answer was that it is done. */
async function again({ daemon }: FaultRig, attempt: Attempt, outcome: Outcome): Promise<void> {
  if (outcome === undefined) return
  await (attempt.retry?.() ?? attempt.call(daemon.client))
}

/** How long an effect may be due after the answer. */
const MISSED_MS = 5_000

async function struck(rig: FaultRig): Promise<void> {
  try {
    await until('the fault strikes', () => rig.traced().struck > 0, MISSED_MS)
  } catch {
    throw new Missed('the operation never came to this point')
  }
}

/** What a client is told names an object or a step, and is none of the errors of a program. */
function assertClear(outcome: Outcome): void {
  if (outcome === undefined) return
  const { error } = outcome
  assert.ok(error instanceof BerthError, `not an answer of the daemon: ${String(error)}`)
  assert.ok(!isDeath(error) || !/socket|connection/i.test(error.message), `the daemon died: ${error.message}`)
  assert.match(error.message, /injected fault|\w{3,} \w+/, 'an error with words')
  assert.doesNotMatch(error.message, /undefined|\[object|TypeError|is not a function|Cannot read/)
}

/** The daemon has lived through it: at once, and a turn of its event loop later. A start may have given up. */
async function assertAlive({ daemon }: FaultRig, attempt: Attempt, outcome: Outcome): Promise<void> {
  if (attempt.isOffline || (attempt.isStart && outcome !== undefined)) return
  await sleep(1)
  try {
    await daemon.client.runtime('Version', {})
  } catch (error) {
    throw new Error(`the daemon did not live through it: ${messageOf(error)}\n${daemon.log.slice(-3000)}`)
  }
}

/** As the kernel, a disk or a network would fail. */
function errnoFor(name: string): string {
  const found = ERRNOS.find(([pattern]) => pattern.test(name))
  return found?.[1] ?? 'EIO'
}

const ERRNOS: ReadonlyArray<readonly [RegExp, string]> = [
  [/^os\.(spawn|fork-worker)$/, 'EAGAIN'],
  [/^os\.(unmount|remove-cgroup|remove-pins)$/, 'EBUSY'],
  [/^os\.(mount|pin-namespaces)/, 'ENOMEM'],
  [/^os\.(signal|kill)/, 'EPERM'],
  [/^os\.(write|mkdir|make)|^state\.|write|unpack|keep/, 'ENOSPC'],
  [/^registry\./, 'ECONNRESET'],
]
