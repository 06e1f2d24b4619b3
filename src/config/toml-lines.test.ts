import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parse, stringify } from 'smol-toml'
import { lineOfKeys, pathKey } from './toml-lines.ts'

function lines(source: string): Record<string, number> {
  parse(source) // the documents of these tests are TOML
  return Object.fromEntries([...lineOfKeys(source)].map(([path, line]) => [path.replaceAll('\0', '/'), line]))
}

test('tables, keys and dotted keys', () => {
  assert.deepEqual(lines('# one\n\n[a]\nb = 1\n"c d" = 2\ne.f = 3\n[a.g]\n'), {
    a: 3,
    'a/b': 4,
    'a/c d': 5,
    'a/e': 6,
    'a/e/f': 6,
    'a/g': 7,
  })
})

test('keys inside inline tables and arrays over several lines', () => {
  const source = 'a = { b = 1, c = { d = 2 } }\nlist = [\n  "x", # y = 1\n  { z = 1 },\n]\nlast = true\n'
  assert.deepEqual(lines(source), { a: 1, 'a/b': 1, 'a/c': 1, 'a/c/d': 1, list: 2, 'list/z': 4, last: 6 })
})

test('tables of an array are told apart by their index', () => {
  const source = '[[r]]\na = 1\n[[r.m]]\nb = 1\n[[r.m]]\nb = 2\n[[r]]\nc.d = 1\n[[r.m]]\nb = 3\n[o]\nb = 1\n'
  assert.deepEqual(lines(source), {
    ...{ r: 1, 'r/a': 2, 'r/m': 3, 'r/m/b': 4, 'r/c': 8, 'r/c/d': 8, o: 11, 'o/b': 12 },
    ...{ 'r/0': 1, 'r/0/a': 2, 'r/0/m': 3, 'r/0/m/0': 3, 'r/0/m/0/b': 4, 'r/0/m/1': 5, 'r/0/m/1/b': 6 },
    ...{ 'r/1': 7, 'r/1/c': 8, 'r/1/c/d': 8, 'r/1/m': 9, 'r/1/m/0': 9, 'r/1/m/0/b': 10 },
  })
})

test('strings that look like more', () => {
  const source = `a = "x # y = 1 \\" z"
b = '''
c = 1
''''
d = """
e = 1 \\"""
"""
f = 'g = [{'
h = 1 # i = 2
`
  assert.deepEqual(lines(source), { a: 1, b: 2, d: 5, f: 8, h: 9 })
})

test('Windows line ends', () => {
  assert.deepEqual(lines('[a]\r\nb = 1\r\nc = [\r\n1,\r\n]\r\nd = 2\r\n'), {
    a: 1,
    'a/b': 2,
    'a/c': 3,
    'a/d': 6,
  })
})

test('every key of any document has a line', () => {
  const key = fc.stringMatching(/^[a-zA-Z0-9 ._#"'=[\]{}-]{1,6}$/)
  const leaf = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 3 }))
  const { tree } = fc.letrec<{ tree: unknown }>(tie => ({
    tree: fc.dictionary(key, fc.oneof({ depthSize: 'small' }, leaf, tie('tree')), { maxKeys: 4 }),
  }))
  fc.assert(
    fc.property(tree, document => {
      const found = lineOfKeys(stringify(document as Record<string, unknown>))
      const visit = (table: object, path: readonly string[]) => {
        for (const [name, value] of Object.entries(table)) {
          const here = [...path, name]
          assert.ok(found.has(pathKey(here)), here.join('/'))
          if (typeof value === 'object' && value !== null && !Array.isArray(value)) visit(value, here)
        }
      }
      visit(document as object, [])
    }),
    { numRuns: 200 },
  )
})
