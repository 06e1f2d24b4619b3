import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, sampleImage } from '../../test/support/cri.ts'
import { collect, serve } from '../../test/support/cri-server.ts'
import { BerthError, notFound } from '../base/errors.ts'
import type { AdminBackend, NodeStatus } from './admin-service.ts'
import type { PullProgress } from './services.ts'

const STATUS: NodeStatus = {
  version: '1.2.3',
  pid: 77,
  startedAt: 1_790_000_000_000_000_001n,
  socket: '/run/berth/berth.sock',
  root: '/var/lib/berth',
  pods: { ready: 2, notready: 1 },
  containers: { running: 3 },
  sessions: { exec: 1 },
  images: 4,
  imageBytes: 2n ** 60n,
  conditions: [{ type: 'NetworkReady', status: false, reason: 'NoPlugin', message: 'no bridge' }],
  handlers: [{ name: 'runc', runtime: 'runc 1.1.5' }],
  warnings: ['runc 1.1.5 has known holes'],
  memory: 90_000_000,
  gzipProgram: '/usr/bin/igzip',
}

const backend: AdminBackend = {
  async *check() {},
  timeline: pod => {
    if (pod !== 'default/web') throw notFound('pod', pod)
    const context = { podId: 'p1', operation: 'RunPodSandbox' }
    return {
      podId: 'p1',
      podName: 'default/web',
      entries: [
        {
          ...context,
          step: 'cni-add',
          startNs: 5n,
          durationNs: 3_100_000_000n,
          detail: 'net1',
          error: 'refused',
        },
        {
          ...context,
          operation: 'StartContainer',
          containerId: 'c1',
          step: 'start',
          startNs: 9n,
          durationNs: 1n,
        },
      ],
      current: { operation: 'StopPodSandbox', step: 'cni-del', startNs: 12n, runningMs: 1.5 },
    }
  },
  status: () => STATUS,
}

test('Status is what the daemon says', async context => {
  const { client } = await serve(context, { admin: backend })
  assert.deepEqual(await client.admin('Status', {}), {
    version: '1.2.3',
    pid: '77',
    started_at: '1790000000000000001',
    socket: '/run/berth/berth.sock',
    root: '/var/lib/berth',
    pods: { ready: 2, notready: 1 },
    containers: { running: 3 },
    sessions: { exec: 1 },
    images: 4,
    image_bytes: '1152921504606846976',
    conditions: STATUS.conditions,
    handlers: STATUS.handlers,
    warnings: STATUS.warnings,
    memory: '90000000',
    gzip_program: '/usr/bin/igzip',
  })
})

test('Timeline has the steps that are done and the one at work', async context => {
  const { client } = await serve(context, { admin: backend })
  const step = { container_id: '', detail: '', error: '' }
  assert.deepEqual(await client.admin('Timeline', { pod: 'default/web' }), {
    pod_id: 'p1',
    pod_name: 'default/web',
    entries: [
      {
        ...step,
        operation: 'RunPodSandbox',
        step: 'cni-add',
        started_at: '5',
        duration: '3100000000',
        detail: 'net1',
        error: 'refused',
      },
      {
        ...step,
        operation: 'StartContainer',
        container_id: 'c1',
        step: 'start',
        started_at: '9',
        duration: '1',
      },
    ],
    current: { ...step, operation: 'StopPodSandbox', step: 'cni-del', started_at: '12', duration: '1500000' },
  })
  await assert.rejects(client.admin('Timeline', { pod: 'other' }), { code: 'not-found' })
  await assert.rejects(client.admin('Timeline', { pod: '' }), {
    code: 'invalid',
    message: 'pod: must not be empty',
  })
})

test('Pull reports what it is doing and ends with the id', async context => {
  const layer = {
    digest: 'sha256:a',
    state: 'downloading',
    bytes: 10,
    unpacked: 5,
    total: 2 ** 40,
    waitsFor: 'the network',
  } as const
  const tell = Promise.withResolvers<(progress: PullProgress) => void>()
  const done = Promise.withResolvers<void>()
  const id = sampleImage().id
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        pull: async (reference, credentials, _, onProgress) => {
          assert.equal(reference, 'web')
          assert.equal(credentials?.basic, `Basic ${Buffer.from('u:p').toString('base64')}`)
          tell.resolve(onProgress!)
          await done.promise
          return id
        },
      },
    }),
  })
  const messages = client.pull({ image: 'web', credentials: { username: 'u', password: 'p' } })
  const first = messages.next()
  const report = await tell.promise
  report({ layers: [layer] })
  const shown = {
    digest: 'sha256:a',
    state: 'DOWNLOADING',
    bytes: '10',
    unpacked: '5',
    total: '1099511627776',
    waits_for: 'the network',
  }
  assert.deepEqual((await first).value, { layers: [shown], image_id: '' })
  report({ layers: [{ ...layer, state: 'done' }] })
  done.resolve()
  const rest = await collect(messages)
  assert.deepEqual(rest.at(-1), { layers: [{ ...shown, state: 'DONE' }], image_id: id })
})

test('Pull says why it failed, and is given up with its caller', async context => {
  const given = Promise.withResolvers<AbortSignal>()
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        pull: async (reference, _, signal) => {
          if (reference === 'gone') throw new BerthError('not-found', 'no such image')
          given.resolve(signal)
          return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        },
      },
    }),
  })
  await assert.rejects(client.pull({ image: 'gone' }).next(), { code: 'not-found', message: 'no such image' })
  const abort = new AbortController()
  const pending = client.pull({ image: 'web' }, abort.signal).next()
  const signal = await given.promise
  const aborted = new Promise(resolve => signal.addEventListener('abort', resolve))
  abort.abort()
  await assert.rejects(pending, { code: 'cancelled' })
  await aborted
})
