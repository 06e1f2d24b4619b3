import { bytes, duration, instant, printable } from './units.ts'

/** The node at a glance, as the daemon tells it. */
export type NodeStatus = {
  readonly version: string
  readonly pid: number
  /** ns since 1970 */
  readonly startedAt: bigint
  readonly socket: string
  readonly root: string
  /** By state. */
  readonly pods: Readonly<Record<string, number>>
  readonly containers: Readonly<Record<string, number>>
  /** Open streams by kind. */
  readonly sessions: Readonly<Record<string, number>>
  readonly images: number
  readonly imageBytes: number
  readonly conditions: ReadonlyArray<{
    readonly type: string
    readonly status: boolean
    readonly reason: string
    readonly message: string
  }>
  /** `runtime` is '' for a handler that is not available; why is among the warnings. */
  readonly handlers: ReadonlyArray<{ readonly name: string; readonly runtime: string }>
  readonly warnings: readonly string[]
  /** Resident bytes of the daemon. */
  readonly memory: number
  /** '' when the unpack workers decompress gzip themselves. */
  readonly gzipProgram: string
}

/** @param now ns since 1970 */
export function statusText(status: NodeStatus, now: bigint): string {
  const rows: Array<readonly [string, string]> = [
    ['daemon', `berth ${status.version}, pid ${status.pid}, ${bytes(status.memory)}`],
    ['up', `${duration(now - status.startedAt)}, since ${instant(status.startedAt)} UTC`],
    ['socket', status.socket],
    ['root', status.root],
    ...status.conditions.map(condition => [conditionName(condition.type), conditionText(condition)] as const),
    ['runtimes', status.handlers.map(handlerText).join(', ') || 'none'],
    ['pods', counts(status.pods)],
    ['containers', counts(status.containers)],
    ['sessions', counts(status.sessions)],
    ['images', status.images === 0 ? 'none' : `${status.images}, ${bytes(status.imageBytes)}`],
    ['gzip', status.gzipProgram || 'built in (igzip would be quicker: Debian package isal)'],
    ...status.warnings.map(warning => ['warning', warning] as const),
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, text]) => `${name.padEnd(width)}  ${printable(text)}\n`).join('')
}

function handlerText({ name, runtime }: NodeStatus['handlers'][number]): string {
  return `${name} (${runtime || 'not available'})`
}

/** `NetworkReady` → `network` */
function conditionName(type: string): string {
  return printable(type.replace(/Ready$/, '').toLowerCase())
}

function conditionText(condition: NodeStatus['conditions'][number]): string {
  if (condition.status) return 'ready'
  const why = [condition.reason, condition.message].filter(text => text !== '').join(': ')
  return why === '' ? 'not ready' : `not ready: ${why}`
}

function counts(byState: Readonly<Record<string, number>>): string {
  const present = Object.entries(byState).filter(([, count]) => count > 0)
  return present.map(([state, count]) => `${count} ${state}`).join(', ') || 'none'
}
