import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isCode } from './errors.ts'
import { KeyedMutex } from './keyed-mutex.ts'
import { Semaphore } from './semaphore.ts'
import { Shares } from './shares.ts'
import { SingleFlight } from './single-flight.ts'

const turn = () => new Promise<void>(resolve => setImmediate(resolve))

test('a key has one holder at a time, in order; other keys do not wait; nothing is kept', async () => {
  const mutex = new KeyedMutex()
  const order: string[] = []
  const first = Promise.withResolvers<void>()
  const a = mutex.run('x', async () => {
    await first.promise
    order.push('a')
  })
  const b = mutex.run('x', async () => order.push('b'))
  const c = mutex.run('x', () => Promise.reject(new Error('c failed')))
  const d = mutex.run('x', async () => order.push('d'))
  await mutex.run('y', async () => order.push('y'))
  assert.deepEqual(order, ['y'])
  first.resolve()
  await Promise.all([a, b, assert.rejects(c, /c failed/), d])
  assert.deepEqual(order, ['y', 'a', 'b', 'd'])
  assert.equal(mutex.size, 0)
})

test('a semaphore admits its limit, keeps the others in order, and refuses beyond its queue', async () => {
  const semaphore = new Semaphore('test', 2, 2)
  const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>())
  let running = 0
  let most = 0
  const work = (n: number) => () => {
    most = Math.max(most, ++running)
    return gates[n]!.promise.finally(() => running--)
  }
  const all = [0, 1, 2, 3].map(n => semaphore.run(work(n)))
  await assert.rejects(
    semaphore.run(async () => undefined),
    /2 operations are waiting already/,
  )
  for (const gate of gates) gate.resolve()
  await Promise.all(all)
  assert.equal(most, 2)
})

test('who leaves the queue of a semaphore does not take a place', async () => {
  const semaphore = new Semaphore('test', 1)
  const gate = Promise.withResolvers<void>()
  const holder = semaphore.run(() => gate.promise)
  const leaving = new AbortController()
  const left = semaphore.run(async () => assert.fail('it had left'), leaving.signal)
  leaving.abort(new Error('gone'))
  await assert.rejects(left, /gone/)
  gate.resolve()
  await holder
  assert.equal(await semaphore.run(async () => 'free'), 'free')
})

test('callers of one key share one flight; one that leaves only detaches itself', async () => {
  const flights = new SingleFlight<number>('never')
  const gate = Promise.withResolvers<number>()
  let runs = 0
  const work = () => {
    runs++
    return gate.promise
  }
  const leaving = new AbortController()
  const first = flights.run('k', leaving.signal, work)
  const second = flights.run('k', undefined, work)
  leaving.abort()
  await assert.rejects(first, error => isCode(error, 'cancelled'))
  gate.resolve(7)
  assert.equal(await second, 7)
  assert.equal(runs, 1)
  await turn()
  assert.equal(flights.size, 0)
})

test('work goes on without callers when nobody may cancel it, and a retry joins it', async () => {
  const flights = new SingleFlight<string>('never')
  const gate = Promise.withResolvers<string>()
  const leaving = new AbortController()
  let aborted = false
  const first = flights.run('k', leaving.signal, signal => {
    signal.addEventListener('abort', () => {
      aborted = true
    })
    return gate.promise
  })
  leaving.abort()
  await assert.rejects(first, error => isCode(error, 'cancelled'))
  assert.equal(aborted, false)
  const retry = flights.run('k', undefined, () => assert.fail('it joins'))
  gate.resolve('done')
  assert.equal(await retry, 'done')
})

test('the last caller to leave aborts the work; who comes then starts afresh', async () => {
  const flights = new SingleFlight<string>('last-waiter')
  const leaving = new AbortController()
  const first = flights.run('k', leaving.signal, signal => {
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('stopped'))))
  })
  leaving.abort()
  await assert.rejects(first, error => isCode(error, 'cancelled'))
  const next = flights.run('k', undefined, async () => 'fresh')
  assert.equal(await next, 'fresh')
})

test('shares: none has more than is left free, whoever comes later gets as much as the greediest has', () => {
  const shares = new Shares<string>(120)
  const greedy = (holder: string) => {
    let held = 0
    while (shares.take(holder)) held++
    return held
  }
  assert.equal(greedy('a'), 60)
  assert.equal(greedy('b'), 30)
  assert.equal(greedy('c'), 15)
  assert.equal(greedy('a'), 0)
  shares.give('a', 60)
  assert.equal(shares.holds('a'), false)
  assert.deepEqual([greedy('c'), greedy('b')], [30, 7])
  assert.equal(shares.free, 120 - 45 - 37)
})

test('shares: all of an amount or nothing', () => {
  const shares = new Shares<string>(10)
  assert.equal(shares.take('a', 6), false)
  assert.equal(shares.holds('a'), false)
  assert.equal(shares.take('a', 5), true)
  assert.equal(shares.take('b', 3), false)
  assert.equal(shares.take('b', 2), true)
  assert.deepEqual([shares.free, shares.total], [3, 10])
})
