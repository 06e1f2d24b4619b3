import type { CallLog } from './call.ts'

/** Who connected: SO_PEERCRED, SO_PEERGROUPS and /proc/PID/comm. */
export type Peer = {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  readonly command: string
}

/** Who may connect beside root and the daemon's own user. */
export type PeerRules = {
  readonly uids: readonly number[]
  /** Primary or supplementary groups. */
  readonly gids: readonly number[]
}

/** One line for each user and minute: anybody can connect without end. */
const REFUSAL_INTERVAL_MS = 60_000
/** Users that are remembered for that. */
const MAX_REFUSED = 100

/** Decides by who is at the other end of a connection; the socket's mode is only the first door. */
export class PeerGuard {
  readonly #rules: PeerRules
  readonly #log: CallLog
  readonly #refused = new Map<number, { readonly since: number; unsaid: number }>()

  constructor(rules: PeerRules, log: CallLog) {
    this.#rules = rules
    this.#log = log
  }

  admits(peer: Peer): boolean {
    const admitted = this.#isAllowed(peer)
    if (admitted) this.#log.debug(fieldsOf(peer), 'client connected')
    else this.#refuse(peer)
    return admitted
  }

  #isAllowed({ uid, gid, groups }: Peer): boolean {
    const { uids, gids } = this.#rules
    if (uid === 0 || uid === process.getuid?.() || uids.includes(uid)) return true
    return [gid, ...groups].some(group => gids.includes(group))
  }

  #refuse(peer: Peer): void {
    const now = performance.now()
    const before = this.#refused.get(peer.uid)
    if (before !== undefined && now - before.since < REFUSAL_INTERVAL_MS) {
      before.unsaid++
      return
    }
    if (this.#refused.size >= MAX_REFUSED) this.#refused.clear()
    this.#refused.set(peer.uid, { since: now, unsaid: 0 })
    const more = before === undefined || before.unsaid === 0 ? {} : { refusedSince: before.unsaid }
    this.#log.warn(
      { ...fieldsOf(peer), ...more },
      'connection refused: its user is not root, nor allowed by listen_group or listen_uids',
    )
  }
}

/** How a peer is called in the log lines of its calls: `kubelet[812]`. */
export function peerName({ command, pid }: Peer): string {
  return `${command || 'unknown'}[${pid}]`
}

function fieldsOf({ pid, uid, gid, command }: Peer) {
  return { pid, uid, gid, command }
}
