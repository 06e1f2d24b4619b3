import { sleep } from '../base/clock.ts'
import { BerthError } from '../base/errors.ts'
import type { ProcessRef } from '../model/pod.ts'
import { descendantsOf, isAlive, processRef, sessionMembers, signalProcess } from '../os/processes.ts'
import type { Child } from '../os/spawn.ts'

const SIGKILL = 9
const SIGSTOP = 19

/** Each look finds what was forked before its parent stood still: a tree that still grows after so many is endless. */
const MAX_LOOKS = 64

/** From SIGKILL to gone: longer only for a process that hangs in the kernel. */
const DEATH_MS = 10_000
const POLL_MS = 5

/**
 * Kills everything that an exec started: what descends from the runtime's process, and what is in the session of the
 * executed process, whose parents may have gone. They are stopped first, so that none forks away while the others
 * are being killed; the runtime comes last.
 * @param leader pid of the executed process, a session leader; undefined if it did not start yet
 * @throws BerthError deadline if one of them does not die
 */
export async function endTree(child: Child, leader: number | undefined): Promise<void> {
  const runtime = processRef(child.pid)
  const session = sessionOf(child.pid, leader)
  if (runtime !== undefined) signalProcess(runtime, SIGSTOP)
  const stopped = new Map<number, ProcessRef>()
  for (let look = 0; look < MAX_LOOKS; look++) {
    const found = members(child.pid, session).filter(pid => !stopped.has(pid))
    if (found.length === 0) break
    for (const pid of found) {
      const ref = processRef(pid)
      if (ref === undefined) continue
      stopped.set(pid, ref)
      signalProcess(ref, SIGSTOP)
    }
  }
  for (const ref of stopped.values()) signalProcess(ref, SIGKILL)
  const deadline = performance.now() + DEATH_MS
  let alive = [...stopped.values()]
  for (;;) {
    alive = alive.filter(isAlive)
    if (alive.length === 0) break
    if (performance.now() > deadline) {
      throw new BerthError('deadline', `exec: ${alive.map(ref => ref.pid).join(', ')} survived SIGKILL`)
    }
    await sleep(POLL_MS)
  }
  child.kill('SIGKILL')
  await child.exited
}

/** The leader's session, unless its pid is somebody else's by now. While a session has members its number is its own. */
function sessionOf(runtime: number, leader: number | undefined): number | undefined {
  if (leader === undefined || processRef(leader) === undefined) return leader
  return descendantsOf(runtime).includes(leader) ? leader : undefined
}

function members(runtime: number, session: number | undefined): number[] {
  const found = new Set(descendantsOf(runtime))
  if (session !== undefined) {
    for (const pid of sessionMembers(session)) {
      found.add(pid)
      for (const below of descendantsOf(pid)) found.add(below)
    }
  }
  found.delete(runtime)
  return [...found]
}
