import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCdiSpec } from './parse-spec.ts'

const minimal = { cdiVersion: '0.6.0', kind: 'vendor.com/net', devices: [{ name: 'nic0' }] }

const parse = (changes: object) => parseCdiSpec({ ...minimal, ...changes }, '/etc/cdi/x.json')

test('every edit there is, with its defaults', () => {
  const spec = parse({
    containerEdits: {
      env: ['A=b=c'],
      deviceNodes: [
        { path: '/dev/a' },
        {
          path: '/dev/b',
          hostPath: '/dev/x',
          type: 'u',
          major: 1,
          minor: 3,
          fileMode: 0o600,
          permissions: 'r',
          uid: 5,
          gid: 6,
        },
      ],
      mounts: [
        { hostPath: '/lib/x', containerPath: '/lib/x', options: ['ro', 'nosuid'] },
        { hostPath: '/y', containerPath: '/y', options: ['bind', 'ro'] },
        { hostPath: 'tmpfs', containerPath: '/t', type: 'tmpfs' },
      ],
      hooks: [
        { hookName: 'createContainer', path: '/bin/hook', args: ['hook', 'x'], env: ['H=1'], timeout: 5 },
      ],
      additionalGids: [44],
      intelRdt: { closID: 'guaranteed' },
    },
  })
  assert.deepEqual(spec.edits, {
    env: ['A=b=c'],
    deviceNodes: [
      { path: '/dev/a', hostPath: '/dev/a', access: 'rwm' },
      {
        path: '/dev/b',
        hostPath: '/dev/x',
        access: 'r',
        type: 'c',
        major: 1,
        minor: 3,
        mode: 0o600,
        uid: 5,
        gid: 6,
      },
    ],
    mounts: [
      { destination: '/lib/x', source: '/lib/x', type: 'bind', options: ['rbind', 'ro', 'nosuid'] },
      { destination: '/y', source: '/y', type: 'bind', options: ['bind', 'ro'] },
      { destination: '/t', source: 'tmpfs', type: 'tmpfs', options: [] },
    ],
    hooks: [
      { name: 'createContainer', hook: { path: '/bin/hook', args: ['hook', 'x'], env: ['H=1'], timeout: 5 } },
    ],
    additionalGids: [44],
    intelRdt: { closID: 'guaranteed' },
  })
  assert.deepEqual([...spec.devices.keys()], ['nic0'])
})

test('CVE-2025-23266: a hook has the variables that its specification gives, without any none', () => {
  const { hooks } = parse({ containerEdits: { hooks: [{ hookName: 'createContainer', path: '/x' }] } }).edits
  assert.deepEqual(hooks[0]?.hook.env, [])
})

test('a name that YAML takes for a number is a name', () => {
  assert.ok(parse({ devices: [{ name: 0 }] }).devices.has('0'))
})

test('what is wrong is named where it stands', () => {
  const refused = (changes: object, message: RegExp) => assert.throws(() => parse(changes), message)
  const edits = (containerEdits: object) => ({ devices: [{ name: 'd', containerEdits }] })
  refused({ cdiVersion: '2.0.0' }, /^Error: cdiVersion: expected a version 0.x or 1.x, got "2.0.0"/)
  refused({ kind: 'nothing' }, /kind: expected vendor\/class/)
  refused({ devices: {} }, /devices: expected a list/)
  refused({ devices: [{ name: 'a b' }] }, /devices\[0\]\.name/)
  refused({ devices: [{ name: 'a' }, { name: 'a' }] }, /devices\[1\]\.name: "a" occurs twice/)
  refused({ stranger: 1 }, /stranger: not known to this version of berth/)
  refused(edits({ netDevices: [] }), /devices\[0\]\.containerEdits\.netDevices: not known/)
  refused(edits({ env: ['NOTHING'] }), /env\[0\]: expected NAME=value/)
  refused(edits({ deviceNodes: [{ path: 'dev/x' }] }), /deviceNodes\[0\]\.path: expected an absolute path/)
  refused(edits({ deviceNodes: [{ path: '/d', type: 'p' }] }), /deviceNodes\[0\]\.type: expected b, c or u/)
  refused(edits({ deviceNodes: [{ path: '/d', permissions: 'rx' }] }), /permissions/)
  refused(edits({ mounts: [{ hostPath: '/a' }] }), /mounts\[0\]\.containerPath/)
  refused(edits({ hooks: [{ hookName: 'later', path: '/x' }] }), /hookName: expected one of prestart/)
  refused(edits({ additionalGids: [-1] }), /additionalGids\[0\]/)
  assert.throws(() => parseCdiSpec([], 'x'), /the document: expected an object/)
})
