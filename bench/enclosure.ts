import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../src/base/clock.ts'
import { errnoOf } from '../src/base/errors.ts'
import { openCgroups } from '../src/os/cgroup/open-cgroups.ts'
import { FileLock } from '../src/os/files.ts'
import { mount } from '../src/os/mounts.ts'
import { raiseLoopback } from '../src/os/syscalls.ts'
import { CGROUP, DATA, RUN } from './places.ts'

/**
 * Runs a script of ours in pid, network and mount namespaces of its own, so that nothing it starts, mounts or
 * configures outlives it, however it ends; then removes the directories and control groups.
 * @returns its exit code
 */
export async function runEnclosed(script: string, args: readonly string[]): Promise<number> {
  mkdirSync(DATA, { recursive: true })
  const lock = FileLock.acquire(join(DATA, 'lock'))
  try {
    await clear()
    return await enclosed(script, args)
  } finally {
    await clear()
    rmSync(DATA, { recursive: true, force: true })
    lock.release()
  }
}

async function enclosed(script: string, args: readonly string[]): Promise<number> {
  // Each dies with its parent; catatonit is process 1 and reaps what daemons leave.
  const command = ['setpriv', '--pdeathsig', 'KILL', '--', 'unshare', '--net', '--mount', '--propagation']
  command.push('private', '--pid', '--fork', '--kill-child', '--mount-proc', '--', 'catatonit', '--')
  const [file, ...rest] = [...command, process.execPath, script, ...args]
  const child = spawn(file!, rest, { stdio: 'inherit' })
  const stop = () => child.kill('SIGKILL')
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  let received: (typeof signals)[number] | undefined
  for (const signal of signals) {
    process.on(signal, () => {
      received = signal
      stop()
    })
  }
  const [code] = (await once(child, 'exit')) as [number | null]
  if (received !== undefined) return 128 + constants.signals[received]
  return code ?? 1
}

/** What is killed may take a moment to leave its control group. */
const LEAVE_MS = 10_000
const RETRY_MS = 50

async function clear(): Promise<void> {
  const cgroups = openCgroups()
  for (const end = performance.now() + LEAVE_MS; ; await sleep(RETRY_MS)) {
    try {
      await cgroups.remove(CGROUP)
      break
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY' || performance.now() > end) throw error
    }
  }
  for (const name of readdirSync(DATA)) {
    if (name !== 'lock') rmSync(join(DATA, name), { recursive: true, force: true })
  }
}

/** The inside: a loopback interface that is up, and a /run on tmpfs as on every machine that has booted. */
export function furnish(): void {
  raiseLoopback()
  mount('tmpfs', '/run', 'tmpfs', 0, 'mode=755')
  mkdirSync(RUN)
}
