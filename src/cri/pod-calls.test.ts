import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, sampleContainer, samplePod } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { dict } from '../base/dict.ts'
import { type ContainerEvent, ContainerEvents } from '../containers/container-events.ts'
import type { Catalog } from '../state/catalog.ts'
import type { Events } from './services.ts'

const pod = samplePod()
const container = sampleContainer()

test('pods: what a client asks for reaches the service, and its answers the client', async context => {
  const asked: unknown[] = []
  const services = fakeServices({
    pods: {
      run: async (config, handler) => {
        asked.push(['run', config.metadata, handler])
        return pod.id
      },
      stop: async id => void asked.push(['stop', id]),
      remove: async id => void asked.push(['remove', id]),
      list: filter => {
        asked.push(['list', filter])
        return [pod, { ...pod, id: 'b', phase: 'creating' }, { ...pod, id: 'c', phase: 'removing' }]
      },
      updateResources: async (id, overhead, resources) => {
        asked.push(['update', id, overhead, resources?.cpuShares])
      },
    },
  })
  const { client } = await serve(context, { services })
  const metadata = { name: 'web', uid: 'u', namespace: 'default', attempt: 1 }
  const run = { config: { metadata }, runtime_handler: 'runc' }
  assert.deepEqual(await client.runtime('RunPodSandbox', run), { pod_sandbox_id: pod.id })
  await client.runtime('StopPodSandbox', { pod_sandbox_id: 'any thing' })
  await client.runtime('RemovePodSandbox', { pod_sandbox_id: '' })
  const filter = {
    id: 'a',
    state: { state: 'SANDBOX_NOTREADY' as const },
    label_selector: dict([['__proto__', 'x']]),
  }
  const { items } = await client.runtime('ListPodSandbox', { filter })
  assert.deepEqual(
    items.map(({ id, state }) => [id, state]),
    [
      [pod.id, 'SANDBOX_READY'],
      ['c', 'SANDBOX_NOTREADY'],
    ],
  )
  await client.runtime('ListPodSandbox', {})
  await client.runtime('UpdatePodSandboxResources', { pod_sandbox_id: 'a', resources: { cpu_shares: 2 } })
  assert.deepEqual(asked, [
    ['list', { id: '', labels: dict() }], // whether the list has room for one more
    ['run', metadata, 'runc'],
    ['stop', 'any thing'],
    ['remove', ''],
    ['list', { id: 'a', state: 'notready', labels: dict([['__proto__', 'x']]) }],
    ['list', { id: '', labels: dict() }],
    ['update', 'a', undefined, 2],
  ])
})

test('PodSandboxStatus: addresses, echoed namespaces, containers of the same moment, info', async context => {
  const services = fakeServices({
    pods: {
      status: () => ({ pod, state: 'ready', containers: [{ container, state: 'running' }], timestamp: 5n }),
      verbose: () => ({ pid: 0, createdAt: pod.createdAt }),
    },
  })
  const { client } = await serve(context, { services })
  const reply = await client.runtime('PodSandboxStatus', { pod_sandbox_id: pod.id, verbose: true })
  assert.deepEqual(reply.status?.network, { ip: '10.85.0.2', additional_ips: [{ ip: 'fd00::2' }] })
  assert.deepEqual(reply.status?.linux?.namespaces?.options, {
    network: 'POD',
    pid: 'CONTAINER',
    ipc: 'POD',
    target_id: '',
    userns_options: null,
  })
  assert.equal(reply.status?.created_at, '1790000000123456789')
  assert.deepEqual(
    reply.containers_statuses.map(({ id, state }) => [id, state]),
    [[container.id, 'CONTAINER_RUNNING']],
  )
  assert.equal(reply.timestamp, '5')
  assert.deepEqual(JSON.parse(reply.info.info!), { pid: 0, createdAt: '1790000000123456789' })
  const brief = await client.runtime('PodSandboxStatus', { pod_sandbox_id: pod.id })
  assert.deepEqual(brief.info, {})
})

test('events arrive with the status of their moment, until the client leaves', async context => {
  const event: ContainerEvent = {
    containerId: container.id,
    type: 'stopped',
    createdAt: 9n,
    podStatus: { pod, state: 'ready', containers: [{ container, state: 'running' }], timestamp: 8n },
  }
  const disposed = Promise.withResolvers<void>()
  const events: Events = {
    subscribe: () => ({
      async *[Symbol.asyncIterator]() {
        yield event
        await disposed.promise
      },
      [Symbol.dispose]: () => disposed.resolve(),
    }),
  }
  const { client } = await serve(context, { services: fakeServices({ events }) })
  for await (const seen of client.runtimeStream('GetContainerEvents', {})) {
    assert.equal(seen.container_id, container.id)
    assert.equal(seen.container_event_type, 'CONTAINER_STOPPED_EVENT')
    assert.equal(seen.created_at, '9')
    assert.equal(seen.pod_sandbox_status?.metadata?.name, 'web')
    assert.equal(seen.containers_statuses[0]?.state, 'CONTAINER_RUNNING')
    break
  }
  await disposed.promise
})

/** Events of any pods, with a label large enough that few of them fit into a connection. */
function largeEvents(losses: string[]): ContainerEvents {
  const catalog = {
    pod: (id: string) => ({ ...pod, id, config: { ...pod.config, labels: dict([['x', 'x'.repeat(1000)]]) } }),
    containersOf: () => [{ ...container, podId: 'p0' }],
  } satisfies Partial<Record<keyof Catalog, unknown>>
  return new ContainerEvents(catalog as unknown as Catalog, { onEventLoss: loss => losses.push(loss) })
}

for (const [total, expected] of [
  [1000, 'gets all of them afterwards'],
  [6000, 'gets the latest of each pod afterwards'],
] as const) {
  test(`a client that does not read while ${total} events happen ${expected}`, async context => {
    const losses: string[] = []
    const events = largeEvents(losses)
    const { client } = await serve(context, { services: fakeServices({ events }) })
    const ending = new AbortController()
    const stream = client.runtimeStream('GetContainerEvents', {}, ending.signal)
    const first = stream.next()
    // The subscription is there once an event arrives.
    const knock = setInterval(() => events.emit('created', 'p0', 'knock'), 5)
    assert.equal((await first).value?.container_id, 'knock')
    clearInterval(knock)
    for (let n = 0; n < total; n++) {
      events.emit('started', `p${n % 3}`, `c${n}`)
      // What is sent is sent between two events; nobody waits for the client.
      if (n % 50 === 0) await client.runtime('Version', {})
    }
    const seen: number[] = []
    let last = 0n
    for await (const event of stream) {
      if (event.container_id === 'knock') continue
      assert.equal(event.containers_statuses.length, 1)
      assert.ok(BigInt(event.created_at) >= last)
      last = BigInt(event.created_at)
      seen.push(Number(event.container_id.slice(1)))
      if (seen.at(-1) === total - 1) break
    }
    assert.deepEqual(
      seen,
      seen.toSorted((a, b) => a - b),
    )
    assert.deepEqual(seen.slice(-3), [total - 3, total - 2, total - 1])
    const lost = losses.filter(loss => loss === 'coalesced').length
    assert.equal(lost, losses.length)
    assert.equal(seen.length + lost, total)
    assert.equal(lost > 0, total > 1000)
  })
}
