import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerGuard } from './peers.ts'

function guard() {
  const warned: object[] = []
  const log = { debug: () => undefined, warn: (fields: object) => warned.push(fields) }
  const peers = new PeerGuard({ uids: [7], gids: [8] }, log as never)
  const ask = (uid: number, gid = uid, groups: number[] = []) =>
    peers.admits({ pid: 1, uid, gid, groups, command: 'curl' })
  return { warned, ask }
}

test('root, and the users and groups of the configuration, are admitted', () => {
  const { ask, warned } = guard()
  assert.deepEqual([ask(0), ask(7), ask(1000, 8), ask(1000, 1000, [9, 8])], [true, true, true, true])
  assert.deepEqual(warned, [])
  assert.deepEqual([ask(8, 7), ask(1000, 1000, [7])], [false, false])
})

test('a refused user is logged once, and so many users are remembered', () => {
  const { ask, warned } = guard()
  for (let again = 0; again < 5; again++) for (let uid = 1001; uid <= 1100; uid++) ask(uid)
  assert.equal(warned.length, 100)
  ask(1101) // forgets the others
  ask(1001)
  ask(1001)
  assert.equal(warned.length, 102)
})
