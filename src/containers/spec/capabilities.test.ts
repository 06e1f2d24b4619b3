import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CAPABILITIES } from '../../os/capabilities.ts'
import { buildCapabilities, type CapabilityInput } from './capabilities.ts'

function build(requested: Partial<CapabilityInput['requested']>, changes: Partial<CapabilityInput> = {}) {
  return buildCapabilities({
    requested: { add: [], drop: [], addAmbient: [], ...requested },
    privileged: false,
    defaults: ['CHOWN', 'CAP_KILL'],
    available: CAPABILITIES,
    notice: () => undefined,
    ...changes,
  })
}

test('the default set, plus and minus what is asked for, with and without prefix, in any case', () => {
  assert.deepEqual(build({}).bounding, ['CAP_CHOWN', 'CAP_KILL'])
  assert.deepEqual(build({ add: ['net_raw'], drop: ['cap_Kill'] }).permitted, ['CAP_CHOWN', 'CAP_NET_RAW'])
  assert.deepEqual(build({ drop: ['ALL'] }).effective, [])
  assert.deepEqual(build({ drop: ['all'], add: ['CHOWN'] }).effective, ['CAP_CHOWN'])
  assert.deepEqual(build({ add: ['ALL'] }).effective, [...CAPABILITIES])
  assert.deepEqual(
    build({ add: ['ALL'], drop: ['SYS_ADMIN'] }).effective,
    CAPABILITIES.filter(name => name !== 'CAP_SYS_ADMIN'),
  )
})

test('cve-2022-24769: inheritable and ambient are empty unless ambient ones are asked for', () => {
  for (const requested of [{}, { add: ['ALL'] }, { drop: ['ALL'] }]) {
    assert.deepEqual(build(requested).inheritable, [])
    assert.deepEqual(build(requested).ambient, [])
  }
  const raised = build({ addAmbient: ['NET_BIND_SERVICE'] })
  assert.deepEqual(raised.ambient, ['CAP_NET_BIND_SERVICE'])
  assert.deepEqual(raised.inheritable, ['CAP_NET_BIND_SERVICE'])
  assert.ok(raised.permitted.includes('CAP_NET_BIND_SERVICE'))
})

test('privileged means all that there is; what berth lacks is left out, and said if it was asked for', () => {
  const notices: string[] = []
  const available = CAPABILITIES.filter(name => name !== 'CAP_SYS_RESOURCE')
  const changes = { available, notice: (message: string) => notices.push(message) }
  assert.deepEqual(build({ drop: ['ALL'] }, { ...changes, privileged: true }).bounding, available)
  assert.deepEqual(notices, [])
  assert.deepEqual(build({ add: ['SYS_RESOURCE'] }, changes).bounding, ['CAP_CHOWN', 'CAP_KILL'])
  assert.match(notices.join(), /CAP_SYS_RESOURCE/)
})

test('an unknown name is refused by field', () => {
  assert.throws(() => build({ add: ['SYS_ADMN'] }), {
    code: 'invalid',
    message: /add_capabilities.*SYS_ADMN/,
  })
  assert.throws(() => build({ drop: ['x'] }), { code: 'invalid', message: /drop_capabilities/ })
})

test('no set ever exceeds what berth has, and each lies in the permitted one', () => {
  const names = fc.subarray([...CAPABILITIES, 'ALL'])
  fc.assert(
    fc.property(
      names,
      names,
      names,
      fc.subarray([...CAPABILITIES]),
      fc.boolean(),
      (add, drop, amb, has, privileged) => {
        const sets = build({ add, drop, addAmbient: amb }, { available: has, privileged })
        for (const set of Object.values(sets)) {
          assert.ok(set.every((name: string) => has.includes(name as never) && sets.permitted.includes(name)))
        }
      },
    ),
  )
})
