import assert from 'node:assert/strict'
import { test } from 'node:test'
import { linesWithSecrets, secret } from './secrets.ts'

const password = secret('password')

for (const [form, text] of [
  ['as it is', password],
  ['in a URL', encodeURIComponent(password)],
  ['in hexadecimal', Buffer.from(password).toString('hex')],
  ...['', 'a', 'ab', 'abc', 'user:'].flatMap(before =>
    (['base64', 'base64url'] as const).map(
      encoding =>
        [
          `in ${encoding} behind ${before.length} bytes`,
          Buffer.from(before + password).toString(encoding),
        ] as const,
    ),
  ),
] as const) {
  test(`a secret is found ${form}`, () => {
    assert.deepEqual(linesWithSecrets(`one line\nlevel=info text=${text}\nanother`), [
      `level=info text=${text}`,
    ])
  })
}

test('what is no secret is not taken for one', () => {
  assert.deepEqual(linesWithSecrets('sha256:4c\nQc4nary\nuser=anna password=[hidden]'), [])
  assert.deepEqual(linesWithSecrets('a token AbC1', ['AbC1']), ['a token AbC1'])
})
