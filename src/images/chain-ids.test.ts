import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { digestFromHex } from '../base/digest.ts'
import { chainIds } from './chain-ids.ts'

test('each chain id is made of the one below and the layer itself', () => {
  const [a, b, c] = ['aa', 'bb', 'cc'].map(text => digestFromHex(text.repeat(32))) as [never, never, never]
  const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`
  const ab = sha256(`${a} ${b}`)
  assert.deepEqual(chainIds([a, b, c]), [a, ab, sha256(`${ab} ${c}`)])
  assert.deepEqual(chainIds([]), [])
})
