import { existsSync, type FSWatcher, readdirSync, readFileSync, statSync, watch } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../base/errors.ts'
import type { ContainerPaths, ExitRecord } from './runtime.ts'

/** Directory events may be lost; this is how long an exit can then go unseen. */
const RESCAN_MS = 2000

/** What the monitor writes: 128 + signal at most. */
const MAX_CODE = 255

export type ExitWatch = {
  /** Looks at the whole directory now. */
  rescan(): void
  [Symbol.dispose](): void
}

/**
 * Calls for each file of the exits directory, possibly several times, until `remove` has taken it away. The
 * directory's events are a hint; a periodic look finds what they missed. The monitor writes `<id>.XXXXXX` and
 * renames it, so a name with a dot is nobody's.
 */
export function watchExits(exitsDir: string, onExit: (id: string) => void): ExitWatch {
  let watcher: FSWatcher | undefined
  const report = (name: string) => {
    if (!name.includes('.')) onExit(name)
  }
  const open = () => {
    try {
      watcher = watch(exitsDir, { persistent: false }, (_event, name) => {
        if (name !== null && existsSync(join(exitsDir, name))) report(name)
      })
      watcher.on('error', close)
    } catch {
      watcher = undefined // no inotify watch to be had: the timer does it, and tries again
    }
  }
  const close = () => {
    watcher?.close()
    watcher = undefined
  }
  const rescan = () => {
    if (watcher === undefined) open()
    for (const name of namesIn(exitsDir)) report(name)
  }
  rescan()
  const timer = setInterval(rescan, RESCAN_MS).unref()
  return {
    rescan,
    [Symbol.dispose]: () => {
      clearInterval(timer)
      close()
    },
  }
}

/**
 * What the monitor recorded: the persistent file first, which survives a reboot. Its change time is when the
 * container ended.
 */
export function readExitFiles(exitsDir: string, id: string, paths: ContainerPaths): ExitRecord | undefined {
  const oom = existsSync(join(paths.persist, 'oom')) || existsSync(join(paths.bundle, 'oom'))
  for (const file of [join(paths.persist, 'exit'), join(exitsDir, id)]) {
    const found = readCode(file)
    if (found !== undefined) return { ...found, oom }
  }
  return undefined
}

/** undefined for a missing file, and for one that a full disk left empty. */
function readCode(file: string): { code: number; finishedAt: bigint } | undefined {
  try {
    const text = readFileSync(file, 'utf8').trim()
    if (!/^[0-9]{1,3}$/.test(text) || Number(text) > MAX_CODE) return undefined
    return { code: Number(text), finishedAt: statSync(file, { bigint: true }).ctimeNs }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
