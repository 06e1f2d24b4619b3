import { sleep } from '../base/clock.ts'
import type { Difference } from '../model/difference.ts'
import type { CurrentStep, TimelineEntry } from '../observe/timeline.ts'
import { Credentials } from '../registry/credentials.ts'
import type { CallContext, Calls } from './call.ts'
import { nonEmptyLine } from './convert/fields.ts'
import type { AdminHandlers } from './generated/berth/admin/v1/Admin.ts'
import type { CheckResponse } from './generated/berth/admin/v1/CheckResponse.ts'
import type { LayerProgress } from './generated/berth/admin/v1/LayerProgress.ts'
import type { PullRequest__Output } from './generated/berth/admin/v1/PullRequest.ts'
import type { PullResponse } from './generated/berth/admin/v1/PullResponse.ts'
import type { TimelineEntry as WireEntry } from './generated/berth/admin/v1/TimelineEntry.ts'
import type { TimelineResponse } from './generated/berth/admin/v1/TimelineResponse.ts'
import type { Images, PullProgress } from './services.ts'

export type PodTimeline = {
  readonly podId: string
  /** `namespace/name`. */
  readonly podName: string
  readonly entries: readonly TimelineEntry[]
  readonly current?: CurrentStep
}

export type NodeStatus = {
  readonly version: string
  readonly pid: number
  /** ns since 1970 */
  readonly startedAt: bigint
  readonly socket: string
  readonly root: string
  /** Counts by state. */
  readonly pods: Readonly<Record<string, number>>
  readonly containers: Readonly<Record<string, number>>
  /** Open streams by kind. */
  readonly sessions: Readonly<Record<string, number>>
  readonly images: number
  /** Bytes on disk. */
  readonly imageBytes: bigint
  readonly conditions: ReadonlyArray<{
    readonly type: string
    readonly status: boolean
    readonly reason: string
    readonly message: string
  }>
  /** `runtime` as in `runc 1.1.5`, '' for a handler that is not available. */
  readonly handlers: ReadonlyArray<{ readonly name: string; readonly runtime: string }>
  readonly warnings: readonly string[]
  /** Resident bytes of the daemon. */
  readonly memory: number
  /** '' when the unpack workers decompress gzip themselves. */
  readonly gzipProgram: string
}

/** What the daemon tells its own command line. */
export interface AdminBackend {
  /**
   * @param pod id, unique prefix, `namespace/name` or name
   * @throws BerthError not-found, or invalid when several pods have the name
   */
  timeline(pod: string): PodTimeline
  status(): NodeStatus
  /** Compares rows with what is on the node; `repair` also makes both agree. */
  check(repair: boolean, signal: AbortSignal): AsyncIterable<CheckEvent>
}

export type CheckEvent =
  | {
      readonly kind: 'difference'
      readonly difference: Difference
      readonly state: 'found' | 'repaired' | 'failed'
      readonly error: string
    }
  | {
      readonly kind: 'summary'
      /** How many were compared. */
      readonly pods: number
      readonly containers: number
      readonly layers: number
      readonly busy: readonly string[]
      readonly left: number
    }

/** ms between two messages about a pull: as often as a progress bar is worth drawing. */
const PROGRESS_PERIOD = 100

/** `berth.admin.v1.Admin`: all its calls. */
export function adminService(calls: Calls, backend: AdminBackend, images: Images): AdminHandlers {
  return {
    Pull: calls.stream('write', (request, context) => pull(images, request, context)),

    Timeline: calls.read(({ pod }) => fromTimeline(backend.timeline(nonEmptyLine('pod', pod)))),

    Check: calls.stream('write', async function* ({ repair }, { signal }) {
      for await (const event of backend.check(repair, signal)) yield fromCheck(event)
    }),

    Status: calls.read(() => {
      const { startedAt, imageBytes, warnings, conditions, handlers, gzipProgram, ...status } =
        backend.status()
      return {
        ...status,
        gzip_program: gzipProgram,
        started_at: String(startedAt),
        image_bytes: String(imageBytes),
        conditions: [...conditions],
        handlers: [...handlers],
        warnings: [...warnings],
      }
    }),
  }
}

async function* pull(
  images: Images,
  { image, credentials }: PullRequest__Output,
  { signal }: CallContext,
): AsyncGenerator<PullResponse> {
  const secret = credentials === null ? undefined : Credentials.from(credentials, 'credentials')
  let latest: PullProgress = { layers: [] }
  let news = false
  let imageId: string | undefined
  const pulling = images
    .pull(nonEmptyLine('image', image), secret, signal, progress => {
      latest = progress
      news = true
    })
    .then(id => {
      imageId = id
    })
  while (imageId === undefined) {
    await Promise.race([pulling, sleep(PROGRESS_PERIOD)])
    if (news && imageId === undefined) yield { layers: fromProgress(latest) }
    news = false
  }
  yield { layers: fromProgress(latest), image_id: imageId }
}

const DIFFERENCE_STATES = { found: 'FOUND', repaired: 'REPAIRED', failed: 'FAILED' } as const

/** As the command line shows it, also without a daemon. */
export function fromCheck(event: CheckEvent): CheckResponse {
  if (event.kind === 'summary') {
    const { pods, containers, layers, busy, left } = event
    return { difference: null, summary: { pods, containers, layers, busy: [...busy], left } }
  }
  const { kind, subject, podId = '', containerId = '', found, cause, remedy, fix } = event.difference
  return {
    difference: {
      kind,
      subject,
      pod_id: podId,
      container_id: containerId,
      found,
      cause,
      remedy,
      repairable: fix !== undefined,
      state: DIFFERENCE_STATES[event.state],
      error: event.error,
    },
    summary: null,
  }
}

const LAYER_STATES = {
  waiting: 'WAITING',
  downloading: 'DOWNLOADING',
  unpacking: 'UNPACKING',
  committing: 'COMMITTING',
  done: 'DONE',
  exists: 'EXISTS',
} as const

function fromProgress({ layers }: PullProgress): LayerProgress[] {
  return layers.map(({ state, waitsFor, ...layer }) => ({
    ...layer,
    state: LAYER_STATES[state],
    waits_for: waitsFor,
  }))
}

function fromTimeline({ podId, podName, entries, current }: PodTimeline): TimelineResponse {
  return {
    pod_id: podId,
    pod_name: podName,
    entries: entries.map(fromEntry),
    current:
      current === undefined
        ? null
        : fromEntry({ ...current, podId, durationNs: BigInt(Math.round(current.runningMs * 1e6)) }),
  }
}

function fromEntry(entry: TimelineEntry): WireEntry {
  return {
    operation: entry.operation,
    step: entry.step,
    container_id: entry.containerId ?? '',
    started_at: String(entry.startNs),
    duration: String(entry.durationNs),
    detail: entry.detail ?? '',
    error: entry.error ?? '',
  }
}
