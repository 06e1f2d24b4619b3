import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { root } from './sources.ts'

const TABLES = readFileSync(join(root, 'docs/security.md'), 'utf8').split(/^## Layers$/m)[1] ?? ''

type Row = {
  readonly name: string
  readonly tests: ReadonlyArray<{ readonly file: string; readonly name: string }>
}

/** `file` "name of a test", or `file` alone for a fuzz target, in the last column. */
function rowsOf(text: string): Row[] {
  return text
    .split('\n')
    .filter(line => /^\| (?!class |---)/.test(line))
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

test('every class of attack in docs/security.md has its test', () => {
  const rows = rowsOf(TABLES)
  assert.ok(rows.length > 50, String(rows.length))
  for (const { name, tests } of rows) {
    assert.ok(tests.length > 0, `${name}: no test`)
    for (const { file, name: wanted } of tests) {
      assert.ok(existsSync(join(root, file)), `${name}: there is no ${file}`)
      assert.ok(wanted !== '' || file.endsWith('.fuzz.ts'), `${name}: no name of a test in ${file}`)
      const source = readFileSync(join(root, file), 'utf8')
      assert.ok(source.includes(wanted), `${name}: ${file} has no test "${wanted}"`)
    }
  }
})
