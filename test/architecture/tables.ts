import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './sources.ts'

type Row = {
  readonly name: string
  readonly tests: ReadonlyArray<{ readonly file: string; readonly name: string }>
}

/** `file` "name of a test", or `file` alone for a fuzz target, in the last column. */
function rowsOf(text: string): Row[] {
  const lines = text.split('\n')
  return lines
    .filter((line, index) => line.startsWith('| ') && !lines[index + 1]?.startsWith('|---'))
    .map(line => {
      const cells = line.split(' | ')
      const tests = [...cells.at(-1)!.matchAll(/`([\w./-]+\.ts)`(?: "((?:[^"\\]|\\.)*)")?/g)].map(
        ([, file, name = '']) => ({
          file: file!,
          name: name.replaceAll('\\"', '"'),
        }),
      )
      return { name: cells[0]!.slice(2), tests }
    })
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
    for (const { file, name: wanted } of tests) {
      assert.ok(existsSync(join(root, file)), `${name}: there is no ${file}`)
      assert.ok(wanted !== '' || file.endsWith('.fuzz.ts'), `${name}: no name of a test in ${file}`)
      const source = readFileSync(join(root, file), 'utf8')
      assert.ok(source.includes(wanted), `${name}: ${file} has no test "${wanted}"`)
    }
  }
}
