import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isCode } from '../base/errors.ts'
import { parseNetwork } from './cni-config.ts'

const bridge = {
  type: 'bridge',
  ipam: { type: 'host-local' },
  capabilities: { portMappings: true, mac: false },
}
const list = { cniVersion: '1.0.0', name: 'pods', plugins: [bridge, { type: 'portmap' }] }

test('a list gives its plugins in order, with the capabilities that are switched on', () => {
  const network = parseNetwork(list)
  assert.equal(network.name, 'pods')
  assert.deepEqual(
    network.plugins.map(({ type, ipamType, capabilities }) => ({
      type,
      ipamType,
      capabilities: [...capabilities],
    })),
    [
      { type: 'bridge', ipamType: 'host-local', capabilities: ['portMappings'] },
      { type: 'portmap', ipamType: undefined, capabilities: [] },
    ],
  )
})

test("a single plugin's configuration is a list of one, and stays the same network when it was stored", () => {
  const network = parseNetwork({ cniVersion: '0.3.1', name: 'old', ...bridge })
  assert.equal(network.plugins.length, 1)
  assert.deepEqual(parseNetwork(JSON.parse(JSON.stringify(network.json))), network)
})

test('the newest version that both sides know is spoken', () => {
  const versionOf = (members: object) => parseNetwork({ ...list, ...members }).cniVersion
  assert.equal(versionOf({ cniVersion: '0.4.0' }), '0.4.0')
  assert.equal(versionOf({ cniVersion: '0.4.0', cniVersions: ['1.1.0', '0.3.1', '9.0.0'] }), '1.1.0')
  assert.throws(
    () => versionOf({ cniVersion: '0.2.0' }),
    /cniVersion: expected one of .*1\.1\.0, found "0\.2\.0"/,
  )
  assert.throws(() => versionOf({ cniVersion: undefined }), /cniVersion: .*found none/)
})

test('CHECK and GC can be disabled, by a boolean or its name', () => {
  const network = parseNetwork({ ...list, disableCheck: 'true', disableGC: true })
  assert.equal(network.disableCheck && network.disableGc, true)
  assert.throws(() => parseNetwork({ ...list, disableCheck: 1 }), /disableCheck: expected true or false/)
})

test('what is wrong is named, with what was expected', () => {
  const cases: Array<[unknown, RegExp]> = [
    [null, /configuration: expected a JSON object/],
    [[list], /configuration: expected a JSON object/],
    [{ ...list, name: '../x' }, /^BerthError: name: expected a letter or digit/],
    [{ ...list, name: undefined }, /name: expected/],
    [{ ...list, plugins: [] }, /plugins: expected an array of 1 to 32/],
    [{ ...list, plugins: {} }, /plugins: expected an array/],
    [{ ...list, plugins: ['bridge'] }, /plugins\[0\]: expected a JSON object/],
    [{ ...list, plugins: [bridge, {}] }, /plugins\[1\]\.type: expected a plugin's file name/],
    [{ ...list, plugins: [{ type: 'bridge', ipam: 'host-local' }] }, /plugins\[0\]\.ipam: expected/],
    [{ ...list, plugins: [{ type: 'bridge', capabilities: ['a'] }] }, /plugins\[0\]\.capabilities: expected/],
  ]
  for (const [value, message] of cases) {
    assert.throws(
      () => parseNetwork(value),
      error => isCode(error, 'invalid') && message.test(String(error)),
      JSON.stringify(value),
    )
  }
})

test('CVE-2021-20206: no plugin type leads out of the plugin directories', () => {
  for (const type of [
    '../../sbin/reboot',
    '/sbin/reboot',
    '.',
    '..',
    '.hidden',
    '',
    'a/b',
    'a\0b',
    'a\n',
    7,
  ]) {
    assert.throws(() => parseNetwork({ ...list, plugins: [{ type }] }), /plugins\[0\]\.type/)
    if (type === '') continue // an ipam without a type is a network without addresses
    assert.throws(
      () => parseNetwork({ ...list, plugins: [{ type: 'bridge', ipam: { type } }] }),
      /ipam\.type/,
    )
  }
})

test('any JSON is parsed or refused as invalid', () => {
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.record(
      {
        cniVersion: fc.oneof(fc.constant('1.0.0'), fc.jsonValue()),
        name: fc.oneof(fc.constant('n'), fc.jsonValue()),
        type: fc.jsonValue(),
        plugins: fc.oneof(
          fc.jsonValue(),
          fc.array(
            fc.record(
              {
                type: fc.oneof(fc.constant('x'), fc.jsonValue()),
                ipam: fc.jsonValue(),
                capabilities: fc.jsonValue(),
              },
              { requiredKeys: [] },
            ),
          ),
        ),
      },
      { requiredKeys: [] },
    ),
  )
  fc.assert(
    fc.property(anything, value => {
      try {
        for (const { type } of parseNetwork(value).plugins) assert.match(type, /^[A-Za-z0-9][A-Za-z0-9._-]*$/)
      } catch (error) {
        assert.ok(isCode(error, 'invalid'), String(error))
      }
    }),
  )
})
