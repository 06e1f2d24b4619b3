import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ResizeReader } from './resize.ts'

const cells = fc.integer({ min: 1, max: 0xffff })
const size = fc.tuple(cells, cells).map(([width, height]) => ({ width, height }))

test('sizes run together and cut anywhere', () => {
  const property = fc.property(
    fc.array(size, { maxLength: 8 }),
    fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 9 }),
    fc.constantFrom('', '\n', ' ', '\0'),
    (sizes, cuts, between) => {
      const sent = sizes
        .map(({ width, height }) => JSON.stringify({ Width: width, Height: height }))
        .join(between)
      const reader = new ResizeReader()
      const read = []
      for (let at = 0, turn = 0; at < sent.length; turn++) {
        const length = cuts[turn % cuts.length]!
        read.push(...reader.push(Buffer.from(sent.slice(at, at + length))))
        at += length
      }
      assert.deepEqual(read, sizes)
    },
  )
  fc.assert(property)
})

test('what is no size is skipped', () => {
  const reader = new ResizeReader()
  const wrong = [
    '{"Width":0,"Height":24}',
    '{"Width":80}',
    '{"Width":65536,"Height":24}',
    '{"Width":80.5,"Height":24}',
    '{"Width":"80","Height":24}',
    '{"Width":-1,"Height":24}',
    '}{}',
    '[]{',
    'null',
    '{"Width":1,"Height":',
  ]
  assert.deepEqual(reader.push(Buffer.from(wrong.join(''))), [])
  assert.deepEqual(reader.push(Buffer.from('{"Width":80,"Height":24}')), [{ width: 80, height: 24 }])
})

test('what never ends is not kept', () => {
  const reader = new ResizeReader()
  for (let round = 0; round < 1000; round++) assert.deepEqual(reader.push(Buffer.alloc(1000, '{')), [])
  assert.deepEqual(reader.push(Buffer.from('}{"Width":80,"Height":24}')), [{ width: 80, height: 24 }])
  const random = fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
    for (const { width, height } of new ResizeReader().push(Buffer.from(bytes)))
      assert.ok(width > 0 && height > 0)
  })
  fc.assert(random)
})

test('of more than fits only the end is read', () => {
  const reader = new ResizeReader()
  reader.push(Buffer.from('{"Width":80,'))
  const many = Array.from({ length: 10_000 }, (_, index) => `{"Width":${index + 1},"Height":24}`).join('')
  const read = reader.push(Buffer.from(many))
  assert.ok(read.length > 1 && read.length < 100, `${read.length} sizes`)
  assert.deepEqual(read.at(-1), { width: 10_000, height: 24 })
  assert.ok(read.every(({ width }) => width > 9900))
})
