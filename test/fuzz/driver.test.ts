import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BerthError } from '../../src/base/errors.ts'
import { fuzz } from './driver.ts'
import { type FuzzTarget, isRefusal, mutated, text } from './target.ts'

const bounds = { seed: 7, runs: 500 }

function targetOf(run: FuzzTarget['run']): FuzzTarget {
  return { inputs: text(fc.string({ maxLength: 30 })), run, runs: 500 }
}

test('refusals and acceptance are no findings, a wrong error is one, as small as it gets', async () => {
  const sound = targetOf(input => {
    if (input.length > 5) throw new BerthError('invalid', 'name: expected at most 5 bytes')
  })
  assert.deepEqual(await fuzz(sound, [], bounds), { runs: 500, finding: undefined })
  const broken = targetOf(input => {
    if (input.length > 5) throw new TypeError('cannot read properties of undefined')
  })
  const { finding } = await fuzz(broken, [], bounds)
  assert.equal(finding?.input.length, 6)
  assert.ok(finding.error instanceof TypeError)
  assert.deepEqual((await fuzz(broken, [], bounds)).finding?.input, finding.input, 'the seed decides')
})

test('the corpus comes first', async () => {
  const seen: string[] = []
  const target = targetOf(input => void seen.push(input.toString()))
  await fuzz(target, [Buffer.from('once failed'), Buffer.from('this too')], { seed: 1, runs: 10 })
  assert.deepEqual(seen.slice(0, 2), ['once failed', 'this too'])
  assert.equal(seen.length, 12)
})

test('an error for an operator: of a plain kind, with words, bounded', () => {
  assert.ok(
    isRefusal(new Error('x')) && isRefusal(new BerthError('invalid', 'x')) && isRefusal(new SyntaxError('x')),
  )
  const others = [new TypeError('x'), new RangeError('x'), new assert.AssertionError({}), 'x', undefined]
  const texts = ['', 'x'.repeat(8193)].map(message => new Error(message))
  for (const error of [...others, ...texts]) assert.ok(!isRefusal(error), String(error))
})

test('mutations stay near their seeds and go everywhere', () => {
  const inputs = fc.sample(mutated(['{"name":"x"}'], ['TOKEN']), { numRuns: 1000, seed: 1 })
  const texts = new Set(inputs.map(String))
  assert.ok(texts.has('{"name":"x"}') && texts.size > 500)
  assert.ok([...texts].some(one => one.includes('TOKEN')) && [...texts].some(one => one.length < 5))
})
