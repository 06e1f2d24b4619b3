import { shortId } from '../../base/ids.ts'
import { printable } from './units.ts'

type Difference = {
  readonly kind: string
  readonly subject: string
  readonly pod_id: string
  readonly container_id: string
  readonly found: string
  readonly cause: string
  readonly remedy: string
  readonly repairable: boolean
  readonly state: string | number
  readonly error: string
}

type Summary = {
  readonly pods: number
  readonly containers: number
  readonly layers: number
  readonly busy: readonly string[]
  readonly left: number
}

/** A difference as a paragraph: what, why, and what is done about it. */
export function differenceText(difference: Difference): string {
  const { kind, subject, found, cause, remedy, error } = difference
  const rows = [
    ['found', found],
    ['likely cause', cause],
    [remedyName(difference), remedy],
    ...(error === '' ? [] : [['failed', error]]),
  ]
  const lines = rows.map(([name, text]) => `  ${name!.padEnd(12)}  ${text}`)
  return [`${kind}: ${subjectOf(difference)}${subject}`, ...lines]
    .map(line => `${printable(line)}\n`)
    .join('')
}

function subjectOf({ subject, pod_id: pod, container_id: container }: Difference): string {
  if (container !== '' && subject !== container) return `container ${shortId(container)}, `
  if (container === '' && pod !== '' && !subject.startsWith(pod)) return `pod ${shortId(pod)}, `
  return ''
}

function remedyName({ repairable, state }: Difference): string {
  if (state === 'REPAIRED') return 'repaired'
  return repairable ? 'repair would' : 'repair'
}

export function checkSummaryText(
  { pods, containers, layers, busy, left }: Summary,
  differences: number,
): string {
  const compared = `compared ${pods} pods, ${containers} containers and ${layers} layers`
  const found =
    differences === 0 ? 'no difference' : `${differences} ${differences === 1 ? 'difference' : 'differences'}`
  const lines = [
    ...busy.map(what => `not compared, since an operation is under way: ${what}`),
    `${compared}: ${found}${differences > 0 ? `, ${left} left` : ''}`,
    'the content of layers was not compared: berth image verify does that',
  ]
  return lines.map(line => `${printable(line)}\n`).join('')
}
