import { BerthError } from './base/errors.ts'
import type { NodeCheck } from './check/node-check.ts'
import { NodeWipe } from './check/node-wipe.ts'
import type { Config } from './config/config.ts'
import { NodePaths } from './config/paths.ts'
import { type Node, type NodeMode, nodeCheck, openNode, Parts, prepareProcess } from './node.ts'
import { createLog } from './observe/log.ts'
import { FileLock } from './os/files.ts'

/** The node, for a command that works on it while no daemon runs. */
export type OfflineNode = AsyncDisposable & {
  readonly node: Node
  readonly check: NodeCheck
  readonly wipe: NodeWipe
  /** @throws BerthError precondition if a daemon has begun meanwhile, which makes what was seen worthless */
  requireAlone(): void
}

/**
 * To look, nothing is locked or made; to repair, the daemon's own lock is held, so that none can start.
 * @throws BerthError precondition naming the process that holds the lock
 */
export async function openOffline(config: Config, mode: Exclude<NodeMode, 'serve'>): Promise<OfflineNode> {
  const paths = new NodePaths(config.root, config.runroot)
  requireNoDaemon(config, paths)
  await prepareProcess(config)
  const log = createLog({ level: 'error', format: 'text' })
  const parts = new Parts()
  try {
    const node = await openNode(config, log, parts, { mode })
    const check = nodeCheck(node, false)
    return {
      node,
      check,
      wipe: new NodeWipe({ ...node, check }),
      requireAlone: () => {
        if (mode === 'look') requireNoDaemon(config, paths)
      },
      [Symbol.asyncDispose]: () => parts.close(log),
    }
  } catch (error) {
    await parts.close(log)
    throw error
  }
}

/** @throws BerthError precondition naming the process of the daemon */
function requireNoDaemon({ api }: Config, { lock }: NodePaths): void {
  const holder = FileLock.holder(lock)
  if (holder === undefined) return
  throw new BerthError(
    'precondition',
    `process ${holder} holds ${lock}, so a daemon runs; if it does not answer at ${api.listen}, it is starting, stopping or hangs: wait for it or stop it`,
  )
}
