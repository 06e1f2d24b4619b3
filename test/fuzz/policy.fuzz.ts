import assert from 'node:assert/strict'
import { parsePolicy } from '../../src/images/policy/policy-file.ts'
import { type FuzzTarget, mutated } from './target.ts'

const sigstore = {
  type: 'sigstoreSigned',
  keyPaths: ['/a.pub', '/b.pub'],
  signedIdentity: { type: 'remapIdentity', prefix: 'a.test', signedPrefix: 'b.test/x' },
}
const exact = { type: 'exactReference', dockerReference: 'quay.io/a:1' }
const policy = {
  default: [{ type: 'reject' }],
  transports: {
    docker: {
      'quay.io/a:v1': [sigstore, { ...sigstore, signedIdentity: exact }],
      '*.example.com': [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: '/k' }],
      '': [{ type: 'insecureAcceptAnything' }],
    },
    'docker-daemon': { '': [{ type: 'insecureAcceptAnything' }] },
  },
}

export const target: FuzzTarget = {
  inputs: mutated(
    [JSON.stringify(policy)],
    ['{}', '[]', '"type":', 'null', '"reject"', '__proto__', '"keyData":"LS0t"', '*.'],
  ),
  run(input) {
    const { default: fallback, scopes } = parsePolicy('/policy.json', input.toString())
    // What is accepted is understood in full: no list is empty, and nothing has become lenient on the way.
    for (const requirements of [fallback, ...scopes.values()]) {
      assert.ok(requirements.length > 0)
      for (const requirement of requirements) {
        if (requirement.type === 'sigstoreSigned') assert.ok(requirement.keys.length > 0)
      }
    }
  },
  runs: 3000,
}
