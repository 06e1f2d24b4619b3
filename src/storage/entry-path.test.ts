import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseEntryPath } from './entry-path.ts'

const parse = (name: string) => parseEntryPath(name, 8)

test('paths are cleaned', () => {
  for (const name of ['a/b', '/a/b', './a//b/', 'a/./b/.', '//a/b']) {
    assert.deepEqual(parse(name), { kind: 'object', parts: ['a', 'b'] }, name)
  }
  for (const name of ['', '.', './', '/']) assert.deepEqual(parse(name), { kind: 'object', parts: [] }, name)
})

test('whiteouts and opaque markers', () => {
  assert.deepEqual(parse('a/.wh.b'), { kind: 'whiteout', parts: ['a', 'b'] })
  assert.deepEqual(parse('.wh.b'), { kind: 'whiteout', parts: ['b'] })
  assert.deepEqual(parse('./.wh....'), { kind: 'whiteout', parts: ['...'] })
  assert.deepEqual(parse('a/b/.wh..wh..opq'), { kind: 'opaque', parts: ['a', 'b'] })
  assert.deepEqual(parse('.wh..wh..opq'), { kind: 'opaque', parts: [] })
  assert.deepEqual(parse('a/.wha'), { kind: 'object', parts: ['a', '.wha'] })
})

test('what AUFS left in is ignored, at any depth', () => {
  for (const name of [
    '.wh..wh.plnk',
    '.wh..wh.plnk/1.2',
    '.wh..wh.aufs',
    'a/.wh..wh.orph/x',
    '.wh..wh..opq/x',
  ]) {
    assert.deepEqual(parse(name), { kind: 'ignored' }, name)
  }
})

test('paths that leave the layer and whiteouts of nothing are refused', () => {
  for (const name of ['..', '../x', 'a/../b', '/../x', 'a/..', '.wh..wh.plnk/../../x']) {
    assert.throws(() => parse(name), { code: 'invalid', message: /"\.\." is not allowed/ }, name)
  }
  for (const name of ['.wh.', 'a/.wh..', '.wh...', '.wh.a/b']) {
    assert.throws(() => parse(name), { code: 'invalid', message: /whiteout/ }, name)
  }
})

test('depth and length are limited', () => {
  assert.equal(parse('a/'.repeat(8)).kind, 'object')
  assert.throws(() => parse('a/'.repeat(9)), { code: 'exhausted', message: /path of 9 components/ })
  assert.throws(() => parse('a'.repeat(3072)), { code: 'exhausted', message: /3072 bytes/ })
})

test('no name gives a part that leads elsewhere', () => {
  const part = fc.constantFrom(
    '',
    '.',
    '..',
    'a',
    '.wh.',
    '.wh.b',
    '.wh..',
    '.wh..wh..opq',
    '.wh..wh.x',
    '.whb',
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 7 }), names => {
      let path: ReturnType<typeof parse>
      try {
        path = parse(names.join('/'))
      } catch {
        return
      }
      if (path.kind === 'ignored') return
      for (const one of path.parts) assert.ok(!['', '.', '..'].includes(one) && !one.includes('/'), one)
    }),
  )
})
