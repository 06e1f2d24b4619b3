import assert from 'node:assert/strict'
import { test } from 'node:test'
import { onPidExit } from './pidfd.ts'

test('without a descriptor an exit is found by asking, once', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  let asked = 0
  let calls = 0
  const hasEnded = () => ++asked === 3
  onPidExit(undefined, hasEnded, () => {
    calls++
    resolve()
  })
  await promise
  assert.deepEqual([asked, calls], [3, 1])
})

test('asking stops when the watch is disposed', async () => {
  let asked = 0
  const never = onPidExit(
    undefined,
    () => ++asked > 0,
    () => assert.fail('disposed'),
  )
  never[Symbol.dispose]()
  await new Promise(resolve => setTimeout(resolve, 50))
  assert.equal(asked, 0)
})
