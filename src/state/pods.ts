import type Sqlite from 'better-sqlite3'
import { dict } from '../base/dict.ts'
import { messageOf } from '../base/errors.ts'
import { type Pod, type PodConfig, type PodPhase, podKey } from '../model/pod.ts'
import { flag, processColumns, processOf, revivePodConfig, type Unreadable } from './rows.ts'

type Row = {
  id: string
  key: string
  phase: PodPhase
  created_at: bigint
  boot_id: string
  runtime_handler: string
  cgroup: string
  network_held: bigint
  delivered: bigint
  init_pid: bigint | null
  init_start: string | null
  config: string
  network: string
  selinux_level: string | null
}

export class PodReader {
  readonly #all: Sqlite.Statement<[], Row>

  constructor(db: Sqlite.Database) {
    this.#all = db.prepare<[], Row>('SELECT * FROM pods ORDER BY created_at').safeIntegers(true)
  }

  /** Oldest first. Rows that cannot be read come back as not ready, with what their columns tell. */
  all(): { pods: Pod[]; unreadable: Unreadable[] } {
    const unreadable: Unreadable[] = []
    const pods = this.#all.all().map(row => {
      try {
        return podOf(row, revivePodConfig(row.config), JSON.parse(row.network) as Pod['network'])
      } catch (error) {
        unreadable.push({ id: row.id, error: messageOf(error) })
        return {
          ...podOf(row, blankConfig(row.key), { ips: [], attachment: undefined }),
          phase: 'notready' as const,
        }
      }
    })
    return { pods, unreadable }
  }
}

export class PodWriter extends PodReader {
  readonly #insert: Sqlite.Statement<unknown[]>
  readonly #update: Sqlite.Statement<unknown[]>
  readonly #delete: Sqlite.Statement<[string]>

  constructor(db: Sqlite.Database) {
    super(db)
    this.#insert = db.prepare(
      `INSERT INTO pods (phase, boot_id, cgroup, network_held, delivered, init_pid, init_start, network,
                         config, created_at, runtime_handler, selinux_level, key, id)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    this.#update = db.prepare(
      `UPDATE pods SET phase = ?, boot_id = ?, cgroup = ?, network_held = ?, delivered = ?, init_pid = ?,
                       init_start = ?, network = ?, config = ? WHERE id = ?`,
    )
    this.#delete = db.prepare('DELETE FROM pods WHERE id = ?')
  }

  insert(pod: Pod): void {
    this.#insert.run(
      ...mutableColumns(pod),
      pod.createdAt,
      pod.runtimeHandler,
      pod.selinuxLevel ?? null,
      podKey(pod.config.metadata),
      pod.id,
    )
  }

  /** Identity (id, key, handler, creation time, SELinux level) never changes. */
  update(pod: Pod): void {
    this.#update.run(...mutableColumns(pod), pod.id)
  }

  delete(id: string): void {
    this.#delete.run(id)
  }
}

function mutableColumns(pod: Pod): unknown[] {
  return [
    pod.phase,
    pod.bootId,
    pod.cgroup,
    flag(pod.networkHeld),
    flag(pod.delivered),
    ...processColumns(pod.init),
    JSON.stringify(pod.network),
    JSON.stringify(pod.config),
  ]
}

function podOf(row: Row, config: PodConfig, network: Pod['network']): Pod {
  const init = processOf(row.init_pid, row.init_start)
  return {
    id: row.id,
    config,
    runtimeHandler: row.runtime_handler,
    phase: row.phase,
    createdAt: row.created_at,
    bootId: row.boot_id,
    cgroup: row.cgroup,
    networkHeld: row.network_held === 1n,
    network,
    ...(init === undefined ? {} : { init }),
    ...(row.selinux_level === null ? {} : { selinuxLevel: row.selinux_level }),
    delivered: row.delivered === 1n,
  }
}

/** Enough to list, stop and remove it: the key column holds the identity. */
function blankConfig(key: string): PodConfig {
  const [namespace = '', name = '', uid = '', attempt = '0'] = key.split('\0')
  return {
    metadata: { name, namespace, uid, attempt: Number(attempt) },
    hostname: '',
    logDirectory: '',
    portMappings: [],
    labels: dict(),
    annotations: dict(),
    cgroupParent: '',
    sysctls: dict(),
    namespaces: { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' },
    privileged: false,
    readonlyRootfs: false,
    supplementalGroups: [],
    supplementalGroupsPolicy: 'merge',
  }
}
