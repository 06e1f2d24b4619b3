import assert from 'node:assert/strict'
import { test } from 'node:test'
import { confinementsIn } from './confinement.ts'

const FREE = 'Name:\tberth\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n'
const NODE = { own: 'mnt:[4026531841]', init: 'mnt:[4026531841]' }

test('a daemon in the namespaces of the node, without filters, has nothing to say', () => {
  assert.deepEqual(confinementsIn(FREE, NODE), [])
  assert.deepEqual(confinementsIn(FREE, { own: NODE.own, init: undefined }), [])
})

test('what its pods would inherit is told, each with the settings that do it', () => {
  const cases: Array<[string, typeof NODE, RegExp]> = [
    [FREE.replace('Seccomp:\t0', 'Seccomp:\t2'), NODE, /seccomp filter.*LockPersonality=/],
    [FREE.replace('NoNewPrivs:\t0', 'NoNewPrivs:\t1'), NODE, /no_new_privs.*NoNewPrivileges=/],
    [
      FREE.replace('1ffffffffff', '1fffdfeffff'),
      NODE,
      /cannot give CAP_SYS_MODULE, CAP_SYS_TIME to any.*CapabilityBoundingSet=/,
    ],
    [FREE, { ...NODE, own: 'mnt:[4026532999]' }, /mount namespace of its own/],
  ]
  for (const [status, mounts, expected] of cases) {
    const found = confinementsIn(status, mounts)
    assert.equal(found.length, 1)
    assert.match(found[0]!, expected)
  }
})
