import { existsSync, type FSWatcher, lstatSync, readFileSync, watch } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, internal, messageOf } from '../base/errors.ts'
import { namesIn } from '../os/files.ts'
import type { ContainerPaths, ExitRecord } from './runtime.ts'
import { readableError } from './text.ts'

/** Directory events may be lost; this is how long an exit can then go unseen. */
const RESCAN_MS = 2000

/** What the monitor writes: 128 + signal at most. */
const MAX_CODE = 255

/** Bytes of an exit file that are read: three digits, or enough of something else to show what it is. */
const MAX_EXIT_FILE = 200n

export type ExitWatch = {
  /** Looks at the whole directory now. */
  rescan(): void
  [Symbol.dispose](): void
}

/**
 * Calls for each file of the exits directory, possibly several times, until `remove` has taken it away. The
 * directory's events are a hint; a periodic look finds what they missed. The monitor writes `<id>.XXXXXX` and
 * renames it, so a name with a dot is nobody's. `onProblem` hears of each look that failed.
 */
export function watchExits(
  exitsDir: string,
  onExit: (id: string) => void,
  onProblem: (error: unknown) => void,
): ExitWatch {
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
    try {
      for (const name of namesIn(exitsDir)) report(name)
    } catch (error) {
      onProblem(error) // no descriptor to be had, say: the next look may find one
    }
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
 * @returns undefined if there is neither file
 * @throws BerthError internal, with what is there, if none of them holds an exit code (a full disk leaves one empty)
 */
export function readExitFiles(exitsDir: string, id: string, paths: ContainerPaths): ExitRecord | undefined {
  const oom = existsSync(join(paths.persist, 'oom')) || existsSync(join(paths.bundle, 'oom'))
  const problems: string[] = []
  for (const file of [join(paths.persist, 'exit'), join(exitsDir, id)]) {
    const found = readCode(file)
    if (typeof found === 'string') problems.push(found)
    else if (found !== undefined) return { ...found, oom }
  }
  if (problems.length > 0) throw internal(problems.join('; '))
  return undefined
}

/** undefined for a missing file, a sentence for one that holds no exit code. */
function readCode(file: string): { code: number; finishedAt: bigint } | string | undefined {
  try {
    const stat = lstatSync(file, { bigint: true })
    if (!stat.isFile()) return `${file}: expected a file`
    if (stat.size > MAX_EXIT_FILE) return `${file}: expected an exit code, found ${stat.size} bytes`
    const text = readFileSync(file, 'utf8').trim()
    if (/^[0-9]{1,3}$/.test(text) && Number(text) <= MAX_CODE)
      return { code: Number(text), finishedAt: stat.ctimeNs }
    return `${file}: expected an exit code, found ${text === '' ? 'nothing' : JSON.stringify(readableError(text))}`
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? undefined : `${file}: ${messageOf(error)}`
  }
}
