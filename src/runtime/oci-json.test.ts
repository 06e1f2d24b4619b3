import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ociJson } from './oci-json.ts'

test('unlimited is written as 2⁶⁴−1', () => {
  const process = { rlimits: [{ type: 'RLIMIT_CORE', hard: -1, soft: -1 }], cwd: '/' }
  assert.equal(
    ociJson({ process }),
    '{"process":{"rlimits":[{"type":"RLIMIT_CORE","hard":18446744073709551615,"soft":18446744073709551615}],"cwd":"/"}}',
  )
  assert.equal(ociJson({ hard: -10, soft: 1 }), '{"hard":-10,"soft":1}')
})

test('nothing that stands in a string is touched', () => {
  const unit = fc.constantFrom('"', 'hard', 'soft', ':', '-1', ',', '}', '\\', '{')
  fc.assert(
    fc.property(fc.array(unit), parts => {
      const args = [parts.join('')]
      assert.deepEqual(JSON.parse(ociJson({ args })), { args })
    }),
  )
})
