import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isTest, root, sourcesIn } from './sources.ts'
import { assertTests, type NamedTest, testsIn } from './tables.ts'

/** Names of constants that bound something: a size, a count, a wait. */
const BOUND =
  /^MAX_|_MAX(_|$)|LIMIT(?!ED)|_MS$|PARALLEL|AT_ONCE|OUTSTANDING|READ_AHEAD|PER_TURN|FREE_BYTES|MIN_FREE|IN_PARTS|_MIB$|LIFETIME|CHUNK_CONNECTIONS|HIGH_WATER/

/** How often something is done, or how long before: nothing ends at these. */
const INTERVAL =
  /^(\w+_)?(POLL|TICK|(?<!FOR_)RETRY|RESCAN|LOOK|PAUSE|PERIOD|PROGRESS|INTERVAL|SUMMARY|SCAN|ORPHANS|SWEEP|MARGIN|GROW_AFTER|ON_ITS_WAY|DELAY|FIRST|LONGEST)(_MAX)?_MS$/

/** Rows whose bound no test drives to. It may become smaller. */
const MAX_UNTESTED = 53

type Row = {
  readonly file: string
  readonly constant: string
  readonly value: string
  readonly reason: string
  readonly tests: readonly NamedTest[]
}

const UNITS: Readonly<Record<string, number>> = {
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  ms: 1,
  s: 1000,
  min: 60_000,
}

function rows(): Row[] {
  const text = readFileSync(join(root, 'docs/limits.md'), 'utf8')
  return text
    .split('\n')
    .filter(line => /^\| (?!bound )/.test(line))
    .map(line => {
      const [, place, value, reason, , tests] = line.slice(2, -2).split(/ (?<!\\)\| /)
      const [, file, constant] = /^`(src\/[\w/.-]+\.ts)` `(\w+)`$/.exec(place!) ?? []
      assert.ok(file !== undefined && constant !== undefined, `docs/limits.md: no constant in ${line}`)
      return { file, constant, value: value!, reason: reason!, tests: testsIn(tests!) }
    })
}

/** `16 MiB`, `5 min`, `0.15`. */
function numberOf(text: string): number {
  const [, number, unit] = /^([\d.]+)(?: (\w+))?$/.exec(text) ?? []
  const factor = unit === undefined ? 1 : UNITS[unit]
  assert.ok(number !== undefined && factor !== undefined, `docs/limits.md: no value: ${text}`)
  return Number(number) * factor
}

/** What stands in the source: numbers and operators, or nothing that can be told. */
function evaluated(expression: string): number | undefined {
  if (!/^[\d_a-fx\s*+()<.-]+$/.test(expression)) return undefined
  return Number(new Function(`return ${expression}`)())
}

function bounds(): Map<string, number> {
  const found = new Map<string, number>()
  for (const { path, text } of sourcesIn('src').filter(source => !isTest(source))) {
    for (const [, name, expression] of text.matchAll(
      /^(?:export )?const ([A-Z][A-Z0-9_]*)(?:: [^=]+)? = (.+)$/gm,
    )) {
      const value = BOUND.test(name!) && !INTERVAL.test(name!) ? evaluated(expression!) : undefined
      if (value !== undefined) found.set(`${path} ${name}`, value)
    }
  }
  return found
}

test('docs/limits.md has every bound of the source, with its value', () => {
  const listed = new Map(rows().map(row => [`${row.file} ${row.constant}`, row]))
  const inSource = bounds()
  assert.ok(inSource.size > 200, String(inSource.size))
  assert.deepEqual(
    [...inSource.keys()].filter(key => !listed.has(key)),
    [],
    'not in docs/limits.md',
  )
  assert.deepEqual(
    [...listed.keys()].filter(key => !inSource.has(key)),
    [],
    'not in the source',
  )
  for (const [key, { value, reason }] of listed) {
    assert.equal(numberOf(value), inSource.get(key), key)
    assert.ok(reason.length > 5, `${key}: no reason`)
  }
})

test('bounds in docs/limits.md have their tests', () => {
  const all = rows()
  for (const { file, constant, tests } of all) assertTests(`${file} ${constant}`, tests)
  const untested = all.filter(({ tests }) => tests.length === 0).length
  assert.ok(untested <= MAX_UNTESTED, `${untested} bounds have no test, instead of ${MAX_UNTESTED}`)
})
