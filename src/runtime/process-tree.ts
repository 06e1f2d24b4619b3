import { setImmediate as nextTurn } from 'node:timers/promises'
import { sleep } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import {
  descendantsOf,
  isAlive,
  leadsSession,
  reapOrphan,
  signalProcess,
  standsStill,
  watchExit,
} from '../os/processes.ts'
import { within } from './within.ts'

const SIGKILL = 9
const SIGSTOP = 19

/** Each look finds what was forked before its parent stood still: a tree that still grows after so many is endless. */
const MAX_LOOKS = 64

/** From SIGKILL to gone: longer only for a process that hangs in the kernel. */
const DEATH_MS = 10_000
const POLL_MS = 5

/** @returns false if the process still lives after `ms` */
export async function hasEnded(ref: ProcessRef, ms: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<true>()
  using _watch = watchExit(ref, () => resolve(true))
  return (await within(ms, promise)) === true
}

/**
 * Kills a process with all that descends from it and all of the sessions that those lead: also where the parents have
 * gone. Everything is stopped first, so that nothing forks away while the rest is being killed; the root comes last,
 * since what it adopted would be lost without it. Nothing happens if it has ended.
 * @throws BerthError deadline if one of them does not die
 */
export async function killTree(root: ProcessRef): Promise<void> {
  if (!signalProcess(root, SIGSTOP)) return await untilNone([root], ref => !reapOrphan(ref))
  const stopped = [root]
  const sessions = new Set<number>()
  if (leadsSession(root)) sessions.add(root.pid)
  for (let look = 0; look < MAX_LOOKS; look++) {
    const running = stopped.some(ref => !standsStill(ref))
    // Of each that is known: with the end of a parent its child is nobody's, or ours, and forks on.
    const found = descendantsOf(stopped, sessions)
    if (found.length === 0 && !running) break
    // A signal takes effect when its process is next on a CPU; and what is large must not hold up everybody else.
    await (found.length === 0 ? sleep(1) : nextTurn())
    for (const ref of found) {
      stopped.push(ref)
      signalProcess(ref, SIGSTOP)
      if (leadsSession(ref)) sessions.add(ref.pid)
    }
  }
  const below = stopped.slice(1)
  for (const ref of below) signalProcess(ref, SIGKILL)
  await untilNone(below, isAlive)
  signalProcess(root, SIGKILL)
  await untilNone([root], isAlive)
  // What it left became ours with its end. A PID namespace cannot end before all who died in it are reaped.
  await untilNone(stopped, ref => !reapOrphan(ref))
}

async function untilNone(refs: readonly ProcessRef[], isLeft: (ref: ProcessRef) => boolean): Promise<void> {
  const deadline = performance.now() + DEATH_MS
  for (let left = refs.filter(isLeft); left.length > 0; left = left.filter(isLeft)) {
    if (performance.now() > deadline) {
      throw new BerthError('deadline', `processes survived SIGKILL: ${left.map(ref => ref.pid).join(', ')}`)
    }
    await sleep(POLL_MS)
  }
}
