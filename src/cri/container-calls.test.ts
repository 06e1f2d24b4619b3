import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, sampleContainer } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { dict } from '../base/dict.ts'
import { BerthError } from '../base/errors.ts'
import type { Containers } from './services.ts'

const container = sampleContainer()

test('the status of what does not exist is NOT_FOUND', async context => {
  const { client } = await serve(context)
  const missing = { code: 'not-found', message: /"gone" not found/ }
  await assert.rejects(client.runtime('PodSandboxStatus', { pod_sandbox_id: 'gone' }), missing)
  await assert.rejects(client.runtime('ContainerStatus', { container_id: 'gone' }), missing)
  await assert.rejects(client.runtime('ContainerStats', { container_id: 'gone' }), missing)
  await assert.rejects(client.runtime('PodSandboxStats', { pod_sandbox_id: 'gone' }), missing)
})

test('ContainerStatus of an exited container, and the same identity in a list', async context => {
  const exited = sampleContainer({
    phase: 'exited',
    exit: { code: 137, reason: 'OOMKilled', message: 'killed', finishedAt: container.startedAt - 5n },
  })
  const services = fakeServices({
    containers: {
      status: () => ({ container: exited, state: 'exited' }),
      list: () => [exited, sampleContainer({ id: 'creating', phase: 'creating' })],
    },
  })
  const { client } = await serve(context, { services })
  const { status } = await client.runtime('ContainerStatus', { container_id: exited.id })
  const { labels, annotations, ...rest } = status!
  assert.deepEqual([dict(labels), dict(annotations)], [exited.config.labels, exited.config.annotations])
  const image = {
    image: 'registry.example/web:1',
    annotations: {},
    user_specified_image: 'registry.example/web:1',
    runtime_handler: '',
    image_ref: '',
  }
  assert.deepEqual(rest, {
    id: exited.id,
    metadata: { name: 'main', attempt: 0 },
    state: 'CONTAINER_EXITED',
    created_at: '1790000000123456789',
    started_at: '1790000001000000001',
    finished_at: '1790000001000000001',
    exit_code: 137,
    image,
    image_ref: exited.imageRef,
    image_id: exited.imageId,
    reason: 'OOMKilled',
    message: 'killed',
    mounts: [],
    log_path: exited.logPath,
    resources: null,
    user: { linux: { uid: '1000', gid: '1000', supplemental_groups: ['1000', '2000'] } },
    stop_signal: 'SIGTERM',
  })
  const { containers } = await client.runtime('ListContainers', {})
  assert.equal(containers.length, 1, 'one that is being made is not shown')
  assert.deepEqual(containers[0], {
    id: exited.id,
    pod_sandbox_id: exited.podId,
    metadata: rest.metadata,
    image,
    image_ref: exited.imageRef,
    image_id: exited.imageId,
    state: 'CONTAINER_EXITED',
    created_at: rest.created_at,
    labels,
    annotations,
  })
})

test('containers: what a client asks for reaches the service', async context => {
  const asked: unknown[] = []
  const record =
    (name: string) =>
    async (...args: unknown[]) =>
      void asked.push([name, ...args.filter(arg => !(arg instanceof AbortSignal))])
  const services = fakeServices({
    containers: {
      create: async (podId, config) => {
        asked.push(['create', podId, config.image])
        return 'c1'
      },
      start: record('start'),
      stop: record('stop'),
      remove: record('remove'),
      reopenLog: record('reopenLog'),
      updateResources: async (id, resources) => void asked.push(['update', id, resources.memoryLimit]),
      list: filter => {
        asked.push(['list', filter])
        return []
      },
    },
  })
  const { client } = await serve(context, { services })
  const config = { metadata: { name: 'main' }, image: { image: 'web' } }
  const created = await client.runtime('CreateContainer', { pod_sandbox_id: 'p', config })
  assert.deepEqual(created, { container_id: 'c1' })
  await client.runtime('StartContainer', { container_id: 'a' })
  await client.runtime('StopContainer', { container_id: 'a', timeout: 30 })
  await client.runtime('RemoveContainer', { container_id: 'a' })
  await client.runtime('ReopenContainerLog', { container_id: 'a' })
  await client.runtime('UpdateContainerResources', { container_id: 'a' })
  await client.runtime('UpdateContainerResources', { container_id: 'a', linux: { memory_limit_in_bytes: 7 } })
  const filter = { id: 'i', pod_sandbox_id: 'p', state: { state: 'CONTAINER_CREATED' as const } }
  await client.runtime('ListContainers', { filter })
  assert.deepEqual(asked, [
    // Whether the list of all has room for one more.
    ['list', { id: '', podId: '', labels: dict() }],
    ['create', 'p', 'web'],
    ['start', 'a'],
    ['stop', 'a', 30],
    ['remove', 'a'],
    ['reopenLog', 'a'],
    ['update', 'a', 7],
    ['list', { id: 'i', podId: 'p', state: 'created', labels: dict() }],
  ])
  await assert.rejects(client.runtime('StopContainer', { container_id: 'a', timeout: -1 }), {
    code: 'invalid',
    message: 'timeout: must be at least 0, got -1',
  })
  const unknown = { filter: { state: { state: 9 as 0 } } }
  await assert.rejects(client.runtime('ListContainers', unknown), {
    message: /^filter\.state: expected one of/,
  })
})

test('ExecSync: output that does not fit is cut, a timeout is DEADLINE_EXCEEDED', async context => {
  const execSync: Containers['execSync'] = async (_, command) => {
    if (command[0] === 'hang') throw new BerthError('deadline', 'the command ran for 1 s')
    return { stdout: Buffer.alloc(9 * 2 ** 20, 'o'), stderr: Buffer.alloc(9 * 2 ** 20, 'e'), exitCode: 3 }
  }
  const { client } = await serve(context, { services: fakeServices({ containers: { execSync } }) })
  const run = (cmd: string[]) => client.runtime('ExecSync', { container_id: 'a', cmd, timeout: 1 })
  const { stdout, stderr, exit_code } = await run(['yes'])
  assert.equal(exit_code, 3)
  assert.deepEqual([stdout.length, stderr.length], [8 * 2 ** 20 - 1024, 8 * 2 ** 20 - 1024])
  assert.deepEqual([stdout[0], stderr[0]], [0x6f, 0x65])
  await assert.rejects(run(['hang']), { code: 'deadline' })
  await assert.rejects(run([]), { code: 'invalid', message: 'cmd: must not be empty' })
  await assert.rejects(run(['a', 'b\0']), { code: 'invalid', message: /^cmd\[1\]: / })
})
