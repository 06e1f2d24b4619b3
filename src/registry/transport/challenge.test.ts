import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseChallenges } from './challenge.ts'

const plain = (header: string) =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)])

test('challenges as registries send them', () => {
  const cases: ReadonlyArray<[header: string, expected: unknown]> = [
    ['Basic realm="Registry"', [['basic', { realm: 'Registry' }]]],
    [
      'Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.example.com/token',
            service: 'registry.example.com',
            scope: 'repository:a/b:pull,push',
          },
        ],
      ],
    ],
    ['BEARER Realm = "x" ,\tError=invalid_token', [['bearer', { realm: 'x', error: 'invalid_token' }]]],
    [
      'Basic realm="a", Bearer realm="b"',
      [
        ['basic', { realm: 'a' }],
        ['bearer', { realm: 'b' }],
      ],
    ],
    [
      'Negotiate, Basic realm="a"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a' }],
      ],
    ],
    [
      'Negotiate YII+/==, Basic realm="a"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a' }],
      ],
    ],
    [
      'NTLM YIIab, Bearer realm=b',
      [
        ['ntlm', {}],
        ['bearer', { realm: 'b' }],
      ],
    ],
    ['Basic realm="a \\"quoted\\" \\\\ word"', [['basic', { realm: 'a "quoted" \\ word' }]]],
    ['Basic realm="a",realm="b"', [['basic', { realm: 'a' }]]],
    ['Basic', [['basic', {}]]],
    ['', []],
    [', ,', []],
    [
      'Bearer realm="unterminated',
      [
        ['bearer', {}],
        ['realm', {}],
      ],
    ],
    [`Bearer realm="${'x'.repeat(9000)}"`, []],
  ]
  for (const [header, expected] of cases) assert.deepEqual(plain(header), expected, header)
})

test('any text ends in a bounded answer', () => {
  const chunk = fc.constantFrom('Basic ', 'Bearer ', 'realm', '=', '"', '\\', ',', ' ', 'x', '==', 'ä', '\0')
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 60 }), chunks => {
      const found = parseChallenges(chunks.join(''))
      assert.ok(found.length <= 16)
      for (const { scheme } of found) assert.match(scheme, /^[!-~]+$/)
    }),
  )
  assert.ok(parseChallenges('a,'.repeat(4000)).length <= 16)
})

test('what a challenge is made of is read back', () => {
  const token = fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/)
  const challenge = fc.record({
    scheme: token,
    parameters: fc.dictionary(token, fc.string({ maxLength: 20 }), { minKeys: 1 }),
  })
  fc.assert(
    fc.property(fc.array(challenge, { maxLength: 4 }), challenges => {
      const header = challenges
        .map(
          ({ scheme, parameters }) =>
            `${scheme} ${Object.entries(parameters)
              .map(([name, value]) => `${name}="${value.replace(/["\\]/g, '\\$&')}"`)
              .join(', ')}`,
        )
        .join(', ')
      assert.deepEqual(
        plain(header),
        challenges.map(({ scheme, parameters }) => [scheme, { ...parameters }]),
      )
    }),
  )
})
