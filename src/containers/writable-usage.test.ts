import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { Log } from '../observe/log.ts'
import { WritableUsage } from './writable-usage.ts'

const SECOND = 1000

/** Walks that end when the test says so, on a clock that only the test moves. */
function setUp() {
  const world = { now: 1, rests: [] as number[], warnings: 0 }
  const walks: Array<{ dir: string; end: (bytes: number) => void; fail: () => void }> = []
  const usage = new WritableUsage({
    upperPath: id => `/upper/${id}`,
    mountpoint: '/layers',
    log: { warn: () => world.warnings++ } as Partial<Log> as Log,
    monotonicMs: () => world.now,
    rest: ms => {
      world.rests.push(ms)
      return setImmediate()
    },
    walk: dir => {
      const { promise, resolve, reject } = Promise.withResolvers<{ bytes: number; inodes: number }>()
      const end = (bytes: number) => resolve({ bytes, inodes: bytes / 10 })
      walks.push({ dir, end, fail: () => reject(new Error('EIO')) })
      return promise
    },
  })
  const ask = async (id: string) => {
    const { usedBytes } = usage.of(id)
    await settle()
    return usedBytes
  }
  /** Ends the latest walk after `cost` ms. */
  const finish = async (cost: number, bytes: number) => {
    world.now += cost
    walks.at(-1)!.end(bytes)
    await settle()
  }
  const walked = () => walks.map(walk => walk.dir)
  return { world, walks, usage, ask, finish, walked }
}

async function settle() {
  for (let i = 0; i < 5; i++) await setImmediate()
}

test('an answer never waits: an empty layer first, then what the last walk found, with its time', async () => {
  const { usage, ask, finish, walked } = setUp()
  const first = usage.of('a')
  assert.deepEqual({ ...first, timestamp: 0n }, expected(0n, 1n))
  assert.ok(first.timestamp > 0n)
  assert.deepEqual(walked(), [], 'not within the call')
  assert.equal(await ask('a'), 0n)
  await finish(1, 40_960)
  const next = usage.of('a')
  assert.deepEqual({ ...next, timestamp: 0n }, expected(40_960n, 4096n))
  assert.ok(next.timestamp > first.timestamp)
  assert.deepEqual(walked(), ['/upper/a'])
})

function expected(usedBytes: bigint, inodesUsed: bigint) {
  return { timestamp: 0n, mountpoint: '/layers', usedBytes, inodesUsed }
}

for (const { cost, interval } of [
  { cost: 1, interval: 10 * SECOND },
  { cost: SECOND, interval: 50 * SECOND },
  { cost: 100 * SECOND, interval: 600 * SECOND },
]) {
  test(`after a walk of ${cost} ms the next one is due in ${interval} ms`, async () => {
    const { world, ask, finish, walked } = setUp()
    await ask('a')
    await finish(cost, 10)
    world.now += interval - 1
    await ask('a')
    assert.equal(walked().length, 1)
    world.now += 1
    await ask('a')
    assert.equal(walked().length, 2)
  })
}

test('one walk at a time, in the order asked, with a rest after each that grows with it', async () => {
  const { world, ask, finish, walked } = setUp()
  await ask('a')
  await ask('b')
  await ask('c')
  await ask('b')
  assert.deepEqual(walked(), ['/upper/a'])
  await finish(30, 10)
  assert.deepEqual(walked(), ['/upper/a', '/upper/b'])
  await finish(2, 10)
  await finish(0, 10)
  assert.deepEqual(walked(), ['/upper/a', '/upper/b', '/upper/c'])
  assert.deepEqual(world.rests, [0, 300, 20, 0])
})

test('nothing is left of a container that is forgotten, neither while it waits nor while it is walked', async () => {
  const { ask, usage, finish, walked } = setUp()
  await ask('a')
  await ask('b')
  usage.forget('a')
  usage.forget('b')
  await finish(1, 500)
  assert.deepEqual(walked(), ['/upper/a'])
  assert.equal(await ask('a'), 0n)
  assert.deepEqual(walked(), ['/upper/a', '/upper/a'])
})

test('a walk that fails is logged and tried again after the longest interval; the others go on', async () => {
  const { world, walks, ask, finish, walked } = setUp()
  await ask('a')
  await ask('b')
  walks[0]!.fail()
  await settle()
  assert.equal(world.warnings, 1)
  assert.deepEqual(walked(), ['/upper/a', '/upper/b'])
  await finish(1, 10)
  world.now += 599 * SECOND
  assert.equal(await ask('a'), 0n)
  assert.equal(walked().length, 2)
  world.now += SECOND
  await ask('a')
  assert.deepEqual(walked().slice(2), ['/upper/a'])
})
