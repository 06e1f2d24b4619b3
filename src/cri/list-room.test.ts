import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, protoDir, sampleContainer, samplePod } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { dict } from '../base/dict.ts'
import { textBytes } from './list-room.ts'
import { loadServices } from './proto.ts'

const KIB = 1024
const texts = (bytes: number) => dict([['big', 'ä'.repeat(bytes / 2)]])
const pods = Array.from({ length: 60 }, (_, index) => ({
  ...samplePod({ id: String(index).padStart(64, '0') }),
  config: { ...samplePod().config, annotations: texts(250 * KIB) },
}))

test('no pod is made that would make the list of all too long for a client', async context => {
  let made = 0
  const { client } = await serve(context, {
    services: fakeServices({ pods: { list: () => pods, run: async () => String(made++) } }),
  })
  const run = (bytes: number) =>
    client.runtime('RunPodSandbox', {
      config: { metadata: { name: 'a', uid: 'b', namespace: 'c' }, annotations: texts(bytes) },
    })
  await run(250 * KIB)
  await assert.rejects(run(500 * KIB), {
    code: 'exhausted',
    message: /^the list of all pods would have 15\.\d MiB, and a client takes at most 16/,
  })
  assert.equal(made, 1)
  assert.equal((await client.runtime('ListPodSandbox', {})).items.length, 60)
})

test('nor a container', async context => {
  const containers = pods.map(({ id }) => ({
    ...sampleContainer({ id }),
    config: { ...sampleContainer().config, labels: texts(240 * KIB) },
  }))
  const { client } = await serve(context, {
    services: fakeServices({ containers: { list: () => containers, create: async () => 'id' } }),
  })
  const create = (bytes: number) =>
    client.runtime('CreateContainer', {
      pod_sandbox_id: 'pod',
      config: { metadata: { name: 'a' }, image: { image: 'b' }, labels: texts(bytes) },
    })
  await create(10 * KIB)
  await assert.rejects(create(1000 * KIB), {
    code: 'exhausted',
    message: /^the list of all containers would/,
  })
})

test('labels and annotations are bounded each, and arguments and variables as Linux has it', async context => {
  const { client } = await serve(context, {
    services: fakeServices({ containers: { create: async () => 'id' } }),
  })
  const create = (config: object) =>
    client.runtime('CreateContainer', {
      pod_sandbox_id: 'pod',
      config: { metadata: { name: 'a' }, image: { image: 'b' }, ...config },
    })
  const long = 'x'.repeat(128 * KIB - 1)
  await create({
    labels: texts(1000 * KIB),
    annotations: texts(1000 * KIB),
    args: [long],
    envs: [{ key: 'K', value: long.slice(2) }],
  })
  for (const [field, config] of [
    ['config.labels', { labels: texts(1024 * KIB) }],
    ['config.annotations', { annotations: texts(1024 * KIB) }],
    ['config.args[1]', { args: ['a', `${long}x`] }],
    ['config.command[0]', { command: [`${long}x`] }],
    ['config.envs[0].value', { envs: [{ key: 'K', value: long.slice(1) }] }],
  ] as const) {
    await assert.rejects(create(config), error => {
      const { code, message } = error as { code: string; message: string }
      assert.equal(code, 'invalid')
      assert.ok(message.startsWith(`${field}: must be at most`), message)
      return true
    })
  }
})

test('what is estimated is hardly less than what is sent', () => {
  const { ListPodSandbox } = loadServices(protoDir).runtime
  for (const annotations of [{}, { a: 'b' }, { big: 'ä'.repeat(1000) }]) {
    const item = { id: 'x'.repeat(64), metadata: { name: 'a', uid: 'b', namespace: 'c' }, annotations }
    assert.ok(textBytes(item) >= ListPodSandbox.responseSerialize({ items: [item] }).length)
  }
})
