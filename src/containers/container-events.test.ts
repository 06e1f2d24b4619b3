import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Pod } from '../model/pod.ts'
import type { Catalog } from '../state/catalog.ts'
import { ContainerEvents } from './container-events.ts'

/** Only what events look at. */
function catalogOf(...ids: string[]): Catalog {
  const pods = new Map(ids.map(id => [id, { id, phase: 'ready' } as Pod]))
  return { pod: (id: string) => pods.get(id), containersOf: () => [] } as unknown as Catalog
}

test('events come in order, with the pod as it is, and end when the subscription does', async () => {
  const events = new ContainerEvents(catalogOf('p'))
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

test('a reader that does not read loses old events of the same pod first, and is told how many', () => {
  const events = new ContainerEvents(catalogOf('quiet', 'noisy'))
  const subscription = events.subscribe()
  events.emit('created', 'quiet', 'quiet')
  for (let n = 0; n < 3000; n++) events.emit('started', 'noisy', `c${n}`)
  assert.equal(subscription.dropped, 3001 - 2048)
  const iterator = subscription[Symbol.asyncIterator]()
  return iterator.next().then(({ value }) => assert.equal(value?.containerId, 'quiet'))
})
