import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { BerthError } from '../base/errors.ts'

test('Exec, Attach and PortForward: what a client asks for reaches the streaming server, its URL the client', async context => {
  const asked: unknown[] = []
  const record = (kind: string) => (request: unknown) => {
    asked.push([kind, request])
    return `http://127.0.0.1:1/${kind}/token`
  }
  const streams = { exec: record('exec'), attach: record('attach'), portForward: record('portforward') }
  const { client } = await serve(context, { services: fakeServices({ streams }) })
  const exec = await client.runtime('Exec', {
    container_id: 'c',
    cmd: ['sh', ''],
    stdout: true,
    stderr: true,
  })
  const attach = await client.runtime('Attach', { container_id: 'c', tty: true, stdin: true })
  const forward = await client.runtime('PortForward', { pod_sandbox_id: 'p', port: [80, 65_535] })
  await client.runtime('PortForward', { pod_sandbox_id: 'p' })
  assert.deepEqual(
    [exec.url, attach.url, forward.url].map(url => new URL(url).pathname),
    ['/exec/token', '/attach/token', '/portforward/token'],
  )
  assert.deepEqual(asked, [
    ['exec', { containerId: 'c', command: ['sh', ''], tty: false, stdin: false, stdout: true, stderr: true }],
    ['attach', { containerId: 'c', tty: true, stdin: true, stdout: false, stderr: false }],
    ['portforward', { podId: 'p', ports: [80, 65_535] }],
    ['portforward', { podId: 'p', ports: [] }],
  ])
})

test('Exec, Attach and PortForward: a wrong request names its field', async context => {
  const exhausted = () => {
    throw new BerthError('exhausted', '1000 stream requests wait for their clients already')
  }
  const streams = { exec: exhausted, attach: exhausted, portForward: exhausted }
  const { client } = await serve(context, { services: fakeServices({ streams }) })
  const c = { container_id: 'c', cmd: ['sh'] }
  const none = { stdin: false, stdout: false, stderr: false }
  for (const [call, field] of [
    [client.runtime('Exec', { cmd: ['sh'], stdout: true }), 'container_id'],
    [client.runtime('Exec', { container_id: 'c', stdout: true }), 'cmd'],
    [client.runtime('Exec', { ...c, cmd: ['a', 'b\0'], stdout: true }), 'cmd\\[1\\]'],
    [client.runtime('Exec', { ...c, cmd: ['echo', 'x'.repeat(2 << 20)], stdout: true }), 'cmd\\[1\\]'],
    [
      client.runtime('Exec', {
        ...c,
        cmd: Array.from({ length: 33 }, () => 'x'.repeat(1 << 16)),
        stdout: true,
      }),
      'cmd',
    ],
    [client.runtime('Exec', { ...c, tty: true, stderr: true }), 'stderr'],
    [client.runtime('Exec', { ...c, ...none }), 'stdin'],
    [client.runtime('Attach', { stdout: true }), 'container_id'],
    [client.runtime('Attach', { container_id: 'c', tty: true, stdout: true, stderr: true }), 'stderr'],
    [client.runtime('Attach', { container_id: 'c', ...none }), 'stdin'],
    [client.runtime('PortForward', { port: [80] }), 'pod_sandbox_id'],
    [client.runtime('PortForward', { pod_sandbox_id: 'p', port: [80, 0] }), 'port\\[1\\]'],
    [client.runtime('PortForward', { pod_sandbox_id: 'p', port: [65_536] }), 'port\\[0\\]'],
  ] as const) {
    await assert.rejects(call, { code: 'invalid', message: new RegExp(`^${field}: `) })
  }
  await assert.rejects(client.runtime('Exec', { ...c, stdout: true }), { code: 'exhausted' })
})
