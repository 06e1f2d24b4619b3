import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Pod } from '../model/pod.ts'
import type { Catalog } from '../state/catalog.ts'
import { type ContainerEvent, ContainerEvents } from './container-events.ts'

/** Only what events look at. */
function catalogOf(...ids: string[]): Catalog {
  const pods = new Map(ids.map(id => [id, { id, phase: 'ready' } as Pod]))
  return { pod: (id: string) => pods.get(id), containersOf: () => [] } as unknown as Catalog
}

const ignored = { onEventLoss: () => assert.fail('an event was dropped') }

/** The container ids of what waits for a subscriber, which ends with that. */
async function queuedIn(subscription: AsyncIterable<ContainerEvent> & Disposable): Promise<string[]> {
  subscription[Symbol.dispose]()
  const ids: string[] = []
  for await (const { containerId } of subscription) ids.push(containerId)
  return ids
}

test('events come in order, with the pod as it is, and end when the subscription does', async () => {
  const events = new ContainerEvents(catalogOf('p'), ignored)
  const subscription = events.subscribe()
  events.emit('created', 'p', 'c')
  events.emit('started', 'p', 'c')
  events.emit('started', 'unknown pod', 'c')
  const seen: string[] = []
  let last = 0n
  for await (const event of subscription) {
    seen.push(`${event.type} ${event.containerId} ${event.podStatus.state}`)
    assert.ok(event.createdAt >= last)
    last = event.createdAt
    if (seen.length === 2) events.close()
  }
  assert.deepEqual(seen, ['created c ready', 'started c ready'])
})

test('a reader that does not read gets the latest of each pod, in order, and what it lost is counted', async () => {
  const losses: string[] = []
  const events = new ContainerEvents(catalogOf('quiet', 'busy', 'noisy'), {
    onEventLoss: loss => losses.push(loss),
  })
  using slow = events.subscribe()
  using quickly = events.subscribe()
  const quick = quickly[Symbol.asyncIterator]()
  events.emit('created', 'quiet', 'q')
  let seen = (await quick.next()).value ? 1 : 0
  for (let n = 0; n < 3000; n++) {
    events.emit('started', n % 3 === 0 ? 'busy' : 'noisy', `c${n}`)
    seen += (await quick.next()).value?.containerId === `c${n}` ? 1 : 0
  }
  assert.equal(seen, 3001)
  assert.deepEqual([losses.length, new Set(losses)], [3001 - 2048, new Set(['coalesced'])])
  const kept = await queuedIn(slow)
  assert.equal(kept.length, 2048)
  assert.deepEqual([kept[0], kept.at(-1)], ['q', 'c2999'])
  assert.deepEqual(
    kept.slice(1),
    kept.slice(1).toSorted((a, b) => Number(a.slice(1)) - Number(b.slice(1))),
  )
})

test('an event without a later one of its pod is lost only when there is nothing but those', async () => {
  const losses: string[] = []
  const pods = Array.from({ length: 2049 }, (_, n) => `p${n}`)
  const events = new ContainerEvents(catalogOf('twice', ...pods), { onEventLoss: loss => losses.push(loss) })
  using slow = events.subscribe()
  for (const [n, id] of pods.slice(0, 2047).entries()) {
    if (n < 2) events.emit('started', 'twice', `t${n}`)
    if (n > 0) events.emit('created', id, id)
  }
  events.emit('created', 'p2047', 'p2047')
  assert.deepEqual(losses, ['coalesced'])
  events.emit('created', 'p2048', 'p2048')
  assert.deepEqual(losses, ['coalesced', 'lost'])
  const kept = await queuedIn(slow)
  assert.deepEqual([kept.length, kept[0], kept.at(-1)], [2048, 'p1', 'p2048'])
})

test('so many clients can be subscribed, and one more when one has left', () => {
  const events = new ContainerEvents(catalogOf(), { onEventLoss: () => undefined })
  const all = Array.from({ length: 64 }, () => events.subscribe())
  assert.throws(() => events.subscribe(), { code: 'exhausted', message: /^64 clients are subscribed/ })
  all[10]![Symbol.dispose]()
  events.subscribe()
  assert.throws(() => events.subscribe())
})
