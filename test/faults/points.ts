/** An effect of an operation, addressed so that it is the same one in the next run. */
export type Point = {
  /** `os.mount` */
  readonly name: string
  /** Of a plan: `os.mount=*shm#1`. */
  readonly address: string
  readonly kind: 'sync' | 'async'
}

type TracedEffect = { readonly name: string; readonly kind: 'sync' | 'async'; readonly subject: string }

export type Traced = {
  readonly effects: readonly TracedEffect[]
  /** How often a rule was due. */
  readonly struck: number
}

export function parseTrace(text: string): Traced {
  const effects: TracedEffect[] = []
  let struck = 0
  for (const line of text.split('\n').filter(entry => entry !== '')) {
    const match = /^\d+ (?:struck |(\S+) (sync|async) (.*))/.exec(line)
    if (match === null) continue // the rest of a subject with a line break
    const [, name, kind, subject = ''] = match
    if (name === undefined) struck++
    else effects.push({ name, kind: kind === 'sync' ? 'sync' : 'async', subject })
  }
  return { effects, struck }
}

/** More of one kind than this differ in nothing: the first ones and the last stand for all. */
const MAX_ALIKE = 3

/** The points of an operation, from the effects that it had. */
export function pointsOf(effects: readonly TracedEffect[]): Point[] {
  const points: Point[] = []
  const alike = Map.groupBy(effects, ({ name, subject }) => `${name}=${patternOf(subject)}`)
  for (const [pattern, group] of alike) {
    for (const [index, { name, kind }] of group.entries()) {
      if (index >= MAX_ALIKE - 1 && index < group.length - 1) continue
      points.push({ name, kind, address: `${pattern}#${index + 1}` })
    }
  }
  return points
}

/** What of a subject is another one in every run (ids, numbers, names of tests) or has a meaning in plans. */
function patternOf(subject: string): string {
  const pattern = subject
    // A group is made once in each hierarchy.
    .replace(/^\/sys\/fs\/cgroup\/[^/]+\//, '/sys/fs/cgroup/*/')
    .replaceAll(/berth-(?:faults|test)-[0-9a-f]+/g, '*')
    .replaceAll(/[0-9a-f]{12,}/g, '*')
    .replaceAll(/\b(?:uid-)?pod-\d+-\d+|\bc\d+\b/g, '*')
    .replaceAll(/\d+/g, '*')
    .replaceAll(/[,:#]/g, '*')
    .replaceAll(/\*[\w.*-]*\*/g, '*')
    .replaceAll(/\*+/g, '*')
  return pattern === '' ? '*' : pattern
}
