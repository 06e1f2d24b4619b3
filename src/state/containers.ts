import type Sqlite from 'better-sqlite3'
import { dict } from '../base/dict.ts'
import type { Digest } from '../base/digest.ts'
import { messageOf } from '../base/errors.ts'
import {
  type Container,
  type ContainerConfig,
  type ContainerPhase,
  containerKey,
  type EffectiveUser,
  type ExitReason,
} from '../model/container.ts'
import type { LinuxResources } from '../model/security.ts'
import {
  flag,
  processColumns,
  processOf,
  reviveContainerConfig,
  reviveDict,
  type Unreadable,
} from './rows.ts'

type Row = {
  id: string
  pod_id: string
  key: string
  phase: ContainerPhase
  created_at: bigint
  started_at: bigint
  finished_at: bigint | null
  exit_code: bigint | null
  exit_reason: ExitReason | null
  exit_message: string | null
  image_id: string
  image_ref: string
  image_name: string
  log_path: string
  cgroup: string
  init_pid: bigint | null
  init_start: string | null
  monitor_pid: bigint | null
  monitor_start: string | null
  stop_signal: string
  delivered: bigint
  config: string
  image_mounts: string
  effective_user: string
  resources: string | null
}

export class ContainerReader {
  readonly #all: Sqlite.Statement<[], Row>

  constructor(db: Sqlite.Database) {
    this.#all = db.prepare<[], Row>('SELECT * FROM containers ORDER BY created_at').safeIntegers(true)
  }

  /** Oldest first. Rows that cannot be read come back in phase `unknown`, with what their columns tell. */
  all(): { containers: Container[]; unreadable: Unreadable[] } {
    const unreadable: Unreadable[] = []
    const containers = this.#all.all().map(row => {
      try {
        return containerOf(row)
      } catch (error) {
        unreadable.push({ id: row.id, error: messageOf(error) })
        return { ...containerOf({ ...row, ...blankJson(row.key) }), phase: 'unknown' as const }
      }
    })
    return { containers, unreadable }
  }
}

const MUTABLE = `phase = ?, started_at = ?, finished_at = ?, exit_code = ?, exit_reason = ?, exit_message = ?,
  init_pid = ?, init_start = ?, monitor_pid = ?, monitor_start = ?, delivered = ?, effective_user = ?, resources = ?`

export class ContainerWriter extends ContainerReader {
  readonly #insert: Sqlite.Statement<unknown[]>
  readonly #update: Sqlite.Statement<unknown[]>
  readonly #delete: Sqlite.Statement<[string]>
  readonly #hold: Sqlite.Statement<[string, string]>

  constructor(db: Sqlite.Database) {
    super(db)
    this.#insert = db.prepare(
      `INSERT INTO containers (phase, started_at, finished_at, exit_code, exit_reason, exit_message,
         init_pid, init_start, monitor_pid, monitor_start, delivered, effective_user, resources,
         id, pod_id, key, created_at, image_id, image_ref, image_name, log_path, cgroup, stop_signal,
         config, image_mounts)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    this.#update = db.prepare(`UPDATE containers SET ${MUTABLE} WHERE id = ?`)
    this.#delete = db.prepare('DELETE FROM containers WHERE id = ?')
    this.#hold = db.prepare('INSERT OR IGNORE INTO container_layers (container_id, chain_id) VALUES (?, ?)')
  }

  /** `layers`: the topmost layer of the root and of every image volume; held until the row is deleted. */
  insert(container: Container, layers: readonly Digest[]): void {
    this.#insert.run(
      ...mutableColumns(container),
      container.id,
      container.podId,
      containerKey(container.podId, container.config.metadata),
      container.createdAt,
      container.imageId,
      container.imageRef,
      container.imageName,
      container.logPath,
      container.cgroup,
      container.stopSignal,
      JSON.stringify(container.config),
      JSON.stringify(container.imageMounts),
    )
    for (const layer of layers) this.#hold.run(container.id, layer)
  }

  update(container: Container): void {
    this.#update.run(...mutableColumns(container), container.id)
  }

  delete(id: string): void {
    this.#delete.run(id)
  }
}

function mutableColumns(c: Container): unknown[] {
  return [
    c.phase,
    c.startedAt,
    c.exit?.finishedAt ?? null,
    c.exit?.code ?? null,
    c.exit?.reason ?? null,
    c.exit?.message ?? null,
    ...processColumns(c.init),
    ...processColumns(c.monitor),
    flag(c.delivered),
    JSON.stringify(c.user),
    c.resources === undefined ? null : JSON.stringify(c.resources),
  ]
}

function containerOf(row: Row): Container {
  const init = processOf(row.init_pid, row.init_start)
  const monitor = processOf(row.monitor_pid, row.monitor_start)
  return {
    id: row.id,
    podId: row.pod_id,
    config: reviveContainerConfig(row.config),
    phase: row.phase,
    createdAt: row.created_at,
    startedAt: row.started_at,
    ...(row.exit_code === null
      ? {}
      : {
          exit: {
            code: Number(row.exit_code),
            reason: row.exit_reason ?? 'Unknown',
            message: row.exit_message ?? '',
            finishedAt: row.finished_at ?? 0n,
          },
        }),
    imageId: row.image_id,
    imageRef: row.image_ref,
    imageName: row.image_name,
    imageMounts: reviveDict(row.image_mounts),
    logPath: row.log_path,
    cgroup: row.cgroup,
    ...(init === undefined ? {} : { init }),
    ...(monitor === undefined ? {} : { monitor }),
    user: JSON.parse(row.effective_user) as EffectiveUser,
    stopSignal: row.stop_signal,
    ...(row.resources === null ? {} : { resources: JSON.parse(row.resources) as LinuxResources }),
    delivered: row.delivered === 1n,
  }
}

/** Enough to list, stop and remove it: the key column holds the identity. */
function blankJson(key: string): Pick<Row, 'config' | 'image_mounts' | 'effective_user' | 'resources'> {
  const [, name = '', attempt = '0'] = key.split('\0')
  const namespaces = { network: 'pod', pid: 'container', ipc: 'pod', targetId: '' } as const
  const config: ContainerConfig = {
    metadata: { name, attempt: Number(attempt) },
    image: '',
    userSpecifiedImage: '',
    command: [],
    args: [],
    workingDir: '',
    envs: [],
    mounts: [],
    devices: [],
    cdiDevices: [],
    labels: dict(),
    annotations: dict(),
    logPath: '',
    stdin: false,
    stdinOnce: false,
    tty: false,
    security: {
      capabilities: { add: [], drop: [], addAmbient: [] },
      privileged: false,
      namespaces,
      runAsUsername: '',
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      readonlyRootfs: false,
      noNewPrivs: false,
      maskedPaths: [],
      readonlyPaths: [],
    },
    stopSignal: '',
  }
  return {
    config: JSON.stringify(config),
    image_mounts: '{}',
    effective_user: JSON.stringify({ uid: 0, gid: 0, supplementalGroups: [] }),
    resources: null,
  }
}
