import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Tokens } from './tokens.ts'

test('a token is good once', () => {
  const tokens = new Tokens<string>()
  const [a, b] = [tokens.issue('a'), tokens.issue('b')]
  assert.match(a, /^[A-Za-z0-9_-]{22}$/)
  assert.notEqual(a, b)
  assert.equal(tokens.redeem(a), 'a')
  assert.equal(tokens.redeem(a), undefined)
  assert.equal(tokens.redeem(`${b.slice(0, -1)}!`), undefined)
  assert.equal(tokens.redeem(b), 'b')
  assert.equal(tokens.outstanding, 0)
})

test('a token is good for a minute', () => {
  let now = 5000
  const tokens = new Tokens<string>(() => now)
  const early = tokens.issue('early')
  now += 59_999
  const late = tokens.issue('late')
  assert.equal(tokens.outstanding, 2)
  now += 1
  assert.equal(tokens.redeem(early), undefined)
  assert.equal(tokens.redeem(late), 'late')
})

test('a thousand wait at the same time, no more', () => {
  let now = 0
  const tokens = new Tokens<number>(() => now)
  const all = Array.from({ length: 1000 }, (_, index) => tokens.issue(index))
  assert.throws(() => tokens.issue(1000), { code: 'exhausted' })
  assert.equal(tokens.redeem(all[500]!), 500)
  tokens.issue(1000)
  assert.throws(() => tokens.issue(1001), { code: 'exhausted' })
  now = 60_000
  tokens.issue(1001)
  assert.equal(tokens.outstanding, 1)
})
