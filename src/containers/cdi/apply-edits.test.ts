import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OciSpec } from '../../model/oci.ts'
import { applyCdiEdits } from './apply-edits.ts'
import type { ContainerEdits } from './parse-spec.ts'

const spec: OciSpec = {
  ociVersion: '1.0.2',
  process: { user: { uid: 7, gid: 7 }, args: ['x'], env: ['A=1', 'B=2'], cwd: '/' },
  root: { path: '/root' },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc' },
    { destination: '/a/b', type: 'bind', source: '/old' },
  ],
  linux: { namespaces: [], resources: { devices: [{ allow: false, access: 'rwm' }] } },
}

const nothing: ContainerEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [] }

test('nothing to edit changes nothing that counts', () => {
  const same = applyCdiEdits(spec, [nothing])
  assert.deepEqual(same.process, spec.process)
  assert.deepEqual(same.mounts, spec.mounts)
  assert.equal(same.hooks, undefined)
})

test('variables and mounts replace those of the same name or place; groups and hooks are added', () => {
  const hook = { path: '/bin/hook' }
  const edited = applyCdiEdits(spec, [
    {
      ...nothing,
      env: ['B=3', 'C=4'],
      mounts: [
        { destination: '/a/b', source: '/new' },
        { destination: '/a', source: '/parent' },
      ],
      hooks: [{ name: 'createRuntime', hook }],
      additionalGids: [44, 44],
      intelRdt: { closID: 'c' },
    },
    { ...nothing, hooks: [{ name: 'createRuntime', hook }] },
  ])
  assert.deepEqual(edited.process.env, ['A=1', 'B=3', 'C=4'])
  assert.deepEqual(edited.process.user, { uid: 7, gid: 7, additionalGids: [44] })
  assert.deepEqual(
    edited.mounts.map(({ destination, source }) => [destination, source]),
    [
      ['/proc', 'proc'],
      ['/a', '/parent'],
      ['/a/b', '/new'],
    ],
  )
  assert.deepEqual(edited.hooks, { createRuntime: [hook, hook] })
  assert.deepEqual(edited.linux.intelRdt, { closID: 'c' })
})

test('a device has the numbers that are given, else those of the node, and a rule', () => {
  const deviceNodes = [
    { path: '/dev/inside', hostPath: '/dev/null', access: 'rw' },
    { path: '/dev/given', hostPath: '/nonexistent', type: 'b', major: 8, minor: 1, access: 'r' },
  ] as const
  const { linux } = applyCdiEdits(spec, [{ ...nothing, deviceNodes }])
  assert.deepEqual(
    linux.devices?.map(({ path, type, major, minor }) => [path, type, major, minor]),
    [
      ['/dev/inside', 'c', 1, 3],
      ['/dev/given', 'b', 8, 1],
    ],
  )
  assert.deepEqual(linux.resources?.devices?.slice(1), [
    { allow: true, type: 'c', major: 1, minor: 3, access: 'rw' },
    { allow: true, type: 'b', major: 8, minor: 1, access: 'r' },
  ])
  assert.throws(
    () =>
      applyCdiEdits(spec, [
        { ...nothing, deviceNodes: [{ path: '/x', hostPath: '/proc/self', access: 'r' }] },
      ]),
    { code: 'invalid', message: /\/proc\/self is no device/ },
  )
})
