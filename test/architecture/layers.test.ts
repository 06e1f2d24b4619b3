import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { findCircle, folderOf, parseLayers, readLayers, violation } from './layers.ts'
import { importsOf, isTest, root, sourcesIn } from './sources.ts'

const sources = sourcesIn('src')
const product = sources.filter(source => !isTest(source))

test('the table names every folder and top file of src, and only such', () => {
  const layers = readLayers()
  const unknown = new Set(sources.map(source => folderOf(source.path)).filter(folder => !layers.has(folder)))
  assert.deepEqual([...unknown], [], 'not in the table')
})

test('imports point down the table and never sideways', () => {
  const layers = readLayers()
  const wrong = product.flatMap(source =>
    source.imports
      .filter(path => path.startsWith('src/'))
      .map(path => violation(layers, source.path, path))
      .filter(text => text !== undefined),
  )
  assert.deepEqual(wrong, [])
})

test('imports make no circle', () => {
  const circle = findCircle(new Map(product.map(source => [source.path, source.imports])))
  assert.equal(circle?.join(' → '), undefined)
})

test('every import names a file that exists, and src knows nothing of the tests', () => {
  for (const source of product) {
    for (const path of source.imports.filter(path => path.endsWith('.ts'))) {
      assert.ok(
        existsSync(join(root, path)) || path.includes('/generated/'),
        `${source.path} imports ${path}`,
      )
      assert.match(path, /^src\//, `${source.path} imports ${path}`)
    }
  }
})

test('the reader of imports sees every form', () => {
  const text = `import a from './a.ts'
import type { B } from '../model/b.ts'
import './c.ts'
import {
  d,
  type E,
} from './d.ts'
export { f } from './f.ts'
export * from './g.ts'
import * as h from 'node:fs'
const i = await import('./i.ts')
export const notAnImport = 'x from y'
  import x from './indented-text.ts'
`
  assert.deepEqual(importsOf('src/os/x.ts', text), [
    'src/os/a.ts',
    'src/model/b.ts',
    'src/os/c.ts',
    'src/os/d.ts',
    'src/os/f.ts',
    'src/os/g.ts',
    'node:fs',
    'src/os/i.ts',
  ])
})

test('the rules refuse what they are there for', () => {
  const layers = parseLayers(
    '# A\n\n## Layers\n\n| row | folder |\n|---|---|\n| 11 | `main.ts` |\n| 4 | `a/` |\n| 4 | `b/` |\n| 0 | `c/` |\n\n## More\n\n| 9 | `d/` |\n',
  )
  assert.deepEqual(
    [...layers],
    [
      ['main.ts', 11],
      ['a', 4],
      ['b', 4],
      ['c', 0],
    ],
  )
  assert.equal(violation(layers, 'src/a/x.ts', 'src/c/y.ts'), undefined)
  assert.equal(violation(layers, 'src/a/x.ts', 'src/a/deep/y.ts'), undefined)
  assert.equal(violation(layers, 'src/main.ts', 'src/a/y.ts'), undefined)
  assert.match(violation(layers, 'src/a/x.ts', 'src/b/y.ts')!, /row 4.*row 4/)
  assert.match(violation(layers, 'src/c/x.ts', 'src/a/y.ts')!, /row 0.*row 4/)
  assert.match(violation(layers, 'src/d/x.ts', 'src/a/y.ts')!, /d is not in the table/)

  const files = (list: Record<string, string[]>) => new Map(Object.entries(list))
  assert.deepEqual(findCircle(files({ a: ['b'], b: ['c', 'node:fs'], c: ['b'] })), ['b', 'c', 'b'])
  assert.equal(findCircle(files({ a: ['b', 'c'], b: ['c'], c: [] })), undefined)
})
