import { availableParallelism, cpus, release } from 'node:os'
import { MODES, type Mode } from './cases.ts'
import type { Result } from './matrix.ts'

/** Counts per operation and mode, `passed/failed`, then what is not applicable and why. */
export function tableOf(results: readonly Result[]): string {
  const operations = [...new Set(results.map(({ operation }) => operation))]
  const width = Math.max(...operations.map(name => name.length), 5)
  const line = (name: string, cells: readonly string[]) =>
    [name.padEnd(width), ...cells.map(cell => cell.padStart(9))].join(' ')
  const cell = (chosen: readonly Result[]) => {
    const count = (outcome: Result['outcome']) => chosen.filter(result => result.outcome === outcome).length
    const [passed, failed] = [count('passed'), count('failed')]
    if (passed + failed === 0) return '–'
    return failed === 0 ? `${passed}` : `${passed}+${failed}!`
  }
  const row = (name: string, chosen: readonly Result[]) =>
    line(name, [...MODES.map(mode => cell(chosen.filter(result => result.mode === mode))), cell(chosen)])
  return [
    'passed cases, "+n!" failed ones',
    line('', [...MODES, 'all']),
    ...operations.map(name =>
      row(
        name,
        results.filter(({ operation }) => operation === name),
      ),
    ),
    row('all', results),
    '',
    ...reasonsOf(results),
  ].join('\n')
}

function reasonsOf(results: readonly Result[]): string[] {
  const unfit = results.filter(({ outcome }) => outcome === 'not applicable')
  return [...Map.groupBy(unfit, ({ reason }) => reason)].map(
    ([reason, cases]) => `not applicable, ${cases.length}: ${reason}`,
  )
}

/** The same for the documentation, with what it was found out on: passed / failed / not applicable. */
export function markdownOf(results: readonly Result[]): string {
  const operations = [...new Set(results.map(({ operation }) => operation))]
  const row = (name: string, chosen: readonly Result[]) => {
    const ofMode = (mode: Mode) => chosen.filter(result => result.mode === mode)
    return `| ${[name, ...MODES.map(mode => counts(ofMode(mode))), counts(chosen)].join(' | ')} |`
  }
  const [cpu] = cpus()
  const machine = `${availableParallelism()} × ${cpu?.model.trim()}, Linux ${release()}`
  return [
    `Passed / failed / not applicable, ${new Date().toISOString().slice(0, 10)}, ${machine}:`,
    '',
    `| operation | ${MODES.join(' | ')} | all |`,
    `|---|${'---|'.repeat(MODES.length + 1)}`,
    ...operations.map(name =>
      row(
        name,
        results.filter(({ operation }) => operation === name),
      ),
    ),
    row('all', results),
    '',
    ...reasonsOf(results).map(reason => `- ${reason}`),
  ].join('\n')
}

function counts(results: readonly Result[]): string {
  const count = (outcome: Result['outcome']) => results.filter(result => result.outcome === outcome).length
  return [count('passed'), count('failed'), count('not applicable')].join(' / ')
}
