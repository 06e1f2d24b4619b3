import assert from 'node:assert/strict'
import { parseChallenges } from '../../src/registry/transport/challenge.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  'Basic realm="Registry"',
  'Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push"',
  'Negotiate YII+/==, Basic realm="a \\"quoted\\" \\\\ word", Digest realm=a , qop="auth"',
  `Bearer ${'a=b,'.repeat(40)}`,
]

export const target: FuzzTarget = {
  inputs: mutated(seeds, [
    'Bearer ',
    'realm=',
    '="',
    '\\"',
    ',',
    ' ',
    '==',
    '\t',
    'Basic ',
    'x='.repeat(5000),
  ]),
  run(input) {
    const challenges = parseChallenges(input.toString('latin1'))
    assert.ok(challenges.length <= 16)
    for (const { scheme, parameters } of challenges) {
      assert.match(scheme, /^[!-~]+$/)
      assert.equal(scheme, scheme.toLowerCase())
      assert.ok(parameters.size <= 32)
      for (const [name, value] of parameters) {
        assert.match(name, /^[!-~]+$/)
        assert.ok(value.length <= input.length)
      }
    }
  },
  runs: 5000,
}
