import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isCode } from '../base/errors.ts'
import { SharedGate } from './shared-gate.ts'

test('many are inside at once, and whoever wants to be alone waits for the last of them', async () => {
  const gate = new SharedGate()
  const seen: string[] = []
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const inside = [gate.shared(() => first.promise), gate.shared(() => second.promise)]
  const alone = gate.alone(60_000, async () => seen.push('alone'))
  first.resolve()
  await inside[0]
  seen.push('one left')
  second.resolve()
  await alone
  assert.deepEqual(seen, ['one left', 'alone'])
})

test('newcomers wait while one is alone, but not while it only waits to be', async () => {
  const gate = new SharedGate()
  const seen: string[] = []
  const [holder, work] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const inside = gate.shared(() => holder.promise)
  const begun = Promise.withResolvers<void>()
  const alone = gate.alone(60_000, async () => {
    begun.resolve()
    await work.promise
    seen.push('alone')
  })
  await gate.shared(async () => seen.push('newcomer before'))
  holder.resolve()
  await inside
  await begun.promise
  const late = gate.shared(async () => seen.push('newcomer after'))
  work.resolve()
  await Promise.all([alone, late])
  assert.deepEqual(seen, ['newcomer before', 'alone', 'newcomer after'])
})

test('two never are alone together, and a failure lets the next one in', async () => {
  const gate = new SharedGate()
  const failing = gate.alone(60_000, () => Promise.reject(new Error('failed')))
  const next = gate.alone(60_000, async () => 'next')
  await assert.rejects(failing, /failed/)
  assert.equal(await next, 'next')
})

test('waiting to be alone ends', async () => {
  const gate = new SharedGate()
  const holder = Promise.withResolvers<void>()
  const inside = gate.shared(() => holder.promise)
  await assert.rejects(
    gate.alone(20, async () => 'never'),
    error => isCode(error, 'unavailable'),
  )
  holder.resolve()
  await inside
})
