import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './sources.ts'

/** A test that a document names; without a name for a fuzz target. */
export type NamedTest = { readonly file: string; readonly name: string }

type Row = { readonly name: string; readonly tests: readonly NamedTest[] }

function rowsOf(text: string): Row[] {
  const lines = text.split('\n')
  return lines
    .filter((line, index) => line.startsWith('| ') && !lines[index + 1]?.startsWith('|---'))
    .map(line => {
      const cells = line.split(' | ')
      return { name: cells[0]!.slice(2), tests: testsIn(cells.at(-1)!) }
    })
}

/** `file` "name of a test", or `file` alone for a fuzz target, as often as they stand in a cell. */
export function testsIn(cell: string): NamedTest[] {
  return [...cell.matchAll(/`([\w./-]+\.ts)`(?: "((?:[^"\\]|\\.)*)")?/g)].map(([, file, name = '']) => ({
    file: file!,
    name: name.replaceAll('\\"', '"'),
  }))
}

/** @param subject what they are tests of */
export function assertTests(subject: string, tests: readonly NamedTest[]): void {
  for (const { file, name } of tests) {
    assert.ok(existsSync(join(root, file)), `${subject}: there is no ${file}`)
    assert.ok(name !== '' || file.endsWith('.fuzz.ts'), `${subject}: no name of a test in ${file}`)
    const source = readFileSync(join(root, file), 'utf8')
    assert.ok(source.includes(name), `${subject}: ${file} has no test "${name}"`)
  }
}

/**
 * Holds a document to the tests: each row of its tables, below the first heading `heading`, names tests that exist.
 * @param atLeast rows, so that a change of the document's form is no way out
 */
export function checkTables(document: string, heading: string, atLeast: number): void {
  const text = readFileSync(join(root, document), 'utf8').split(`\n## ${heading}\n`)[1] ?? ''
  const rows = rowsOf(text)
  assert.ok(rows.length >= atLeast, `${document}: ${rows.length} rows`)
  for (const { name, tests } of rows) {
    assert.ok(tests.length > 0, `${name}: no test`)
    assertTests(name, tests)
  }
}
