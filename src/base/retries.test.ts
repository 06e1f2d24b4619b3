import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sleep } from './clock.ts'
import { Retries } from './retries.ts'

function recorder() {
  const lines: string[] = []
  const note = (fields: object, message: string) => {
    lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  return { lines, log: { warn: note, info: note } }
}

test('what failed is tried again, with growing pauses, until it succeeds', async () => {
  const { lines, log } = recorder()
  const retries = new Retries({ log, firstMs: 1 })
  const { promise, resolve } = Promise.withResolvers<void>()
  let tries = 0
  const work = async () => {
    if (++tries < 4) throw new Error(`try ${tries}`)
    setImmediate(resolve)
  }
  retries.later('it', work)
  retries.later('it', () => assert.fail('one for each key'))
  const alive = setInterval(() => undefined, 1000)
  await promise
  clearInterval(alive)
  assert.equal(tries, 4)
  assert.deepEqual(lines, [
    'what had failed has failed again {"what":"it","error":"try 1","nextMs":2}',
    'what had failed has failed again {"what":"it","error":"try 2","nextMs":4}',
    'what had failed has failed again {"what":"it","error":"try 3","nextMs":8}',
    'what had failed is done {"what":"it"}',
  ])
  retries.close()
})

test('nothing is tried after the close', async () => {
  const { lines, log } = recorder()
  const retries = new Retries({ log, firstMs: 1 })
  retries.later('before', () => assert.fail('closed'))
  retries.close()
  retries.later('after', () => assert.fail('closed'))
  await sleep(20)
  assert.deepEqual(lines, [])
})
