import { shortId } from '../../base/ids.ts'
import { cut, duration, instant, printable } from './units.ts'

export type Step = {
  /** The RPC or background work that it belongs to; '' when unknown. */
  readonly operation: string
  /** '' for a step of the pod itself. */
  readonly containerId: string
  readonly step: string
  /** ns since 1970 */
  readonly startNs: bigint
  readonly durationNs: bigint
  readonly detail: string
  /** '' when it succeeded. */
  readonly error: string
}

/** Steps with more time than this between them are not one piece of work. */
const GAP_NS = 1_000_000_000n
const MIN_BAR = 10

/**
 * The steps as a waterfall, oldest first, one piece of work after the other, each on its own scale.
 * @param width columns of the terminal
 */
export function waterfall(steps: readonly Step[], width: number): string {
  return piecesOf(steps)
    .map(piece => drawPiece(piece, width))
    .join('\n')
}

/**
 * Steps of one operation on one container, or on the pod, belong together until nothing happened for a while.
 * Several operations may be at work at a time.
 */
function piecesOf(steps: readonly Step[]): Step[][] {
  const pieces: Step[][] = []
  const latest = new Map<string, Step[]>()
  for (const step of steps) {
    const key = `${step.operation} ${step.containerId}`
    const piece = latest.get(key)
    if (piece !== undefined && step.startNs - endOf(piece) <= GAP_NS) {
      piece.push(step)
    } else {
      const fresh = [step]
      pieces.push(fresh)
      latest.set(key, fresh)
    }
  }
  return pieces
}

function endOf(piece: readonly Step[]): bigint {
  let end = 0n
  for (const step of piece) {
    const stepEnd = step.startNs + step.durationNs
    if (stepEnd > end) end = stepEnd
  }
  return end
}

function drawPiece(piece: readonly Step[], width: number): string {
  const start = piece[0]?.startNs ?? 0n
  const span = endOf(piece) - start
  const names = Math.min(24, Math.max(...piece.map(step => step.step.length)))
  const times = Math.max(...piece.map(step => duration(step.durationNs).length))
  // Two columns of margin, one between the columns.
  const bar = Math.max(MIN_BAR, Math.min(60, width - names - times - 4))
  const title = [titleOf(piece[0]), instant(start), duration(span)].join('  ')
  const lines = piece.map(step => {
    const row =
      `  ${cut(printable(step.step), names).padEnd(names)} ${barOf(step, start, span, bar)} ` +
      duration(step.durationNs).padStart(times)
    const note = printable(step.error === '' ? step.detail : `failed: ${step.error}`)
    // A failure is told in full, below; a detail may be cut.
    if (step.error !== '') return `${row}\n    ${note}`
    const room = width - row.length - 2
    return note === '' || room < 8 ? row : `${row}  ${cut(note, room)}`
  })
  return `${title}\n${lines.join('\n')}\n`
}

function titleOf(step: Step | undefined): string {
  const operation = printable(step?.operation || 'background')
  return step === undefined || step.containerId === ''
    ? operation
    : `${operation} ${shortId(step.containerId)}`
}

function barOf(step: Step, start: bigint, span: bigint, width: number): string {
  if (span === 0n) return '█'.padEnd(width)
  const scale = (ns: bigint) => Math.round((Number(ns) / Number(span)) * width)
  const from = Math.min(width - 1, scale(step.startNs - start))
  const to = Math.max(from + 1, scale(step.startNs - start + step.durationNs))
  return `${' '.repeat(from)}${(step.error === '' ? '█' : '▒').repeat(to - from)}`.padEnd(width)
}
