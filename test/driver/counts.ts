import type { TestEvent } from 'node:test/reporters'
import type { Counts, Skip } from './files.ts'

/** What node:test itself says at the end. */
const SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /

/** A reporter for node:test: how many tests of the file passed and failed, which were skipped and why, their notes. */
export default async function* counts(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let passed = 0
  let failed = 0
  const skipped: Skip[] = []
  const notes: string[] = []
  for await (const event of events) {
    if (event.type === 'test:diagnostic' && !SUMMARY.test(event.data.message)) notes.push(event.data.message)
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue
    const { name, skip, todo, details } = event.data
    if (details.type === 'suite') continue
    if (skip !== undefined)
      skipped.push({ test: name, reason: typeof skip === 'string' ? skip : 'no reason given' })
    else if (todo !== undefined || event.type === 'test:fail') failed++
    else passed++
  }
  yield JSON.stringify({ passed, failed, skipped, notes } satisfies Counts)
}
