import { existsSync, rmSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { invalid, messageOf, precondition } from '../base/errors.ts'
import { removeDirectories, requireWipeable, type WipeScope } from '../check/node-wipe.ts'
import type { Config } from '../config/config.ts'
import { type Flags, loadConfig } from '../config/load-config.ts'
import { NodePaths } from '../config/paths.ts'
import { type OfflineNode, openOffline } from '../offline.ts'
import { FileLock } from '../os/files.ts'
import { OK } from './exit-codes.ts'
import { wipePlanText } from './render/wipe-text.ts'
import type { Streams } from './streams.ts'

type Options = {
  readonly yes?: true
  readonly force?: true
  readonly dryRun?: true
  readonly containers?: true
  readonly images?: true
}

const WORD = 'wipe'

/** `berth wipe`: without `--containers` or `--images` everything, as if there had never been a daemon. */
export async function wipeNode(flags: Flags, options: Options, streams: Streams): Promise<number> {
  if (process.getuid?.() !== 0) throw invalid('user', 'expected root')
  const { config } = loadConfig({ flags })
  const paths = new NodePaths(config.root, config.runroot)
  requireStopped(config, paths)
  if (![paths.root, paths.runRoot].some(existsSync)) {
    streams.stdout.write(`there is nothing: neither ${paths.root} nor ${paths.runRoot} exists\n`)
    return OK
  }
  const isWhole = options.containers !== true && options.images !== true
  const scope = {
    containers: isWhole || options.containers === true,
    images: isWhole || options.images === true,
  }
  if (!(await empty(config, scope, isWhole, options, streams)) || !isWhole) return OK
  using _lock = holdLock(paths)
  const left = await removeDirectories(paths)
  for (const directory of left) streams.stdout.write(`left: ${directory}, in which there is something else\n`)
  streams.stdout.write('nothing of berth is left on this node\n')
  return OK
}

/** @returns false if it was only to be told */
async function empty(
  config: Config,
  scope: WipeScope,
  isWhole: boolean,
  options: Options,
  streams: Streams,
): Promise<boolean> {
  const signal = new AbortController().signal
  await using offline = await openForWipe(config, isWhole, options, streams)
  const plan = await offline.wipe.plan(scope, signal)
  streams.stdout.write(wipePlanText(plan, isWhole ? [config.root, config.runroot] : []))
  const containers = [...offline.node.catalog.containers()].length
  requireWipeable(scope, plan, containers, options.force === true)
  if (options.dryRun) return false
  await confirm(options, streams)
  await offline.wipe.run(scope, signal, step => streams.stdout.write(`${step}\n`))
  return true
}

/** A database that cannot be read is no reason to keep the node: everything is then found by what it left. */
async function openForWipe(
  config: Config,
  isWhole: boolean,
  options: Options,
  streams: Streams,
): Promise<OfflineNode> {
  const paths = new NodePaths(config.root, config.runroot)
  try {
    return await openOffline(config, 'repair')
  } catch (error) {
    const isOfDatabase = messageOf(error).startsWith(paths.database) || isSqliteError(error)
    if (!isWhole || !isOfDatabase) throw error
    if (!options.force || options.dryRun) {
      throw precondition(
        `${messageOf(error)}; with --force it is deleted, and what runs is found by what it left and killed`,
      )
    }
    streams.stdout.write(
      `the database cannot be read: ${messageOf(error)}\nIt is deleted; what runs is found by what it left, and killed.\n`,
    )
    await confirm(options, streams)
    using _lock = holdLock(paths)
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${paths.database}${suffix}`, { force: true })
  }
  return await openOffline(config, 'repair')
}

function isSqliteError(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code === 'string' && code.startsWith('SQLITE_')
}

/** @throws BerthError precondition unless somebody at a terminal wants it, or it was said with the command */
async function confirm({ yes }: Options, streams: Streams): Promise<void> {
  if (yes) return
  if (process.stdin.isTTY !== true || streams.stdout.isTTY !== true) {
    throw precondition('nobody is at a terminal who could be asked; --yes does it without asking')
  }
  const questions = createInterface({ input: process.stdin, output: process.stdout })
  try {
    const answer = await questions.question(`Type ${WORD} to remove all of this: `)
    if (answer.trim() !== WORD) throw precondition('nothing was removed')
  } finally {
    questions.close()
  }
}

/** @throws BerthError precondition naming the process */
function requireStopped({ api }: Config, { lock }: NodePaths): void {
  const holder = FileLock.holder(lock)
  if (holder === undefined) return
  throw precondition(
    `a daemon runs (process ${holder}, ${api.listen}): stop it first, as with "systemctl stop berth"`,
  )
}

function holdLock(paths: NodePaths): Disposable {
  const lock = FileLock.acquire(paths.lock)
  return { [Symbol.dispose]: () => lock.release() }
}
