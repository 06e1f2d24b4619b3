import { sleep } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { descendantsOf, isAlive, processRef, sessionMembers, signalProcess } from '../os/processes.ts'

const SIGKILL = 9
const SIGSTOP = 19

/** Each look finds what was forked before its parent stood still: a tree that still grows after so many is endless. */
const MAX_LOOKS = 64

/** From SIGKILL to gone: longer only for a process that hangs in the kernel. */
const DEATH_MS = 10_000
const POLL_MS = 5

/**
 * Kills a process with all that descends from it. Everything is stopped first, so that nothing forks away while the
 * rest is being killed; the root comes last, since what it adopted would be lost without it.
 * @param leader pid of a session leader below the root whose session belongs to the tree too, also where the parents
 *   have gone
 * @throws BerthError deadline if one of them does not die
 */
export async function killTree(root: ProcessRef, leader?: number): Promise<void> {
  signalProcess(root, SIGSTOP)
  const session = sessionOf(root.pid, leader)
  const stopped = new Map<number, ProcessRef>()
  for (let look = 0; look < MAX_LOOKS; look++) {
    const found = members(root.pid, session).filter(pid => !stopped.has(pid))
    if (found.length === 0) break
    for (const pid of found) {
      const ref = processRef(pid)
      if (ref === undefined) continue
      stopped.set(pid, ref)
      signalProcess(ref, SIGSTOP)
    }
  }
  const below = [...stopped.values()]
  for (const ref of below) signalProcess(ref, SIGKILL)
  await allGone(below)
  signalProcess(root, SIGKILL)
  await allGone([root])
}

async function allGone(refs: readonly ProcessRef[]): Promise<void> {
  const deadline = performance.now() + DEATH_MS
  for (let alive = refs.filter(isAlive); alive.length > 0; alive = alive.filter(isAlive)) {
    if (performance.now() > deadline) {
      throw new BerthError('deadline', `processes survived SIGKILL: ${alive.map(ref => ref.pid).join(', ')}`)
    }
    await sleep(POLL_MS)
  }
}

/** The leader's session, unless its pid is somebody else's by now. While a session has members its number is its own. */
function sessionOf(root: number, leader: number | undefined): number | undefined {
  if (leader === undefined || processRef(leader) === undefined) return leader
  return descendantsOf(root).includes(leader) ? leader : undefined
}

function members(root: number, session: number | undefined): number[] {
  const found = new Set(descendantsOf(root))
  if (session !== undefined) {
    for (const pid of sessionMembers(session)) {
      found.add(pid)
      for (const below of descendantsOf(pid)) found.add(below)
    }
  }
  found.delete(root)
  return [...found]
}
