import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type NodeStatus, statusText } from './status-text.ts'

const START = 1_767_323_045_000_000_000n

const status: NodeStatus = {
  version: '0.1.0',
  pid: 4711,
  startedAt: START,
  socket: '/run/berth/berth.sock',
  root: '/var/lib/berth',
  pods: { ready: 12, notready: 1 },
  containers: { created: 0, running: 24, exited: 2 },
  sessions: { exec: 2, attach: 0, portforward: 1 },
  images: 9,
  imageBytes: 1_300_000_000,
  conditions: [
    { type: 'RuntimeReady', status: true, reason: '', message: '' },
    {
      type: 'NetworkReady',
      status: false,
      reason: 'NoNetwork',
      message: 'no configuration in /etc/cni/net.d',
    },
  ],
  handlers: [
    { name: 'runc', runtime: 'runc 1.1.5' },
    { name: 'kata', runtime: '' },
  ],
  warnings: ['runc 1.1.5 has known holes\x1b[2J'],
  memory: 88_000_000,
  gzipProgram: '/usr/bin/igzip',
}

test('the node at a glance', () => {
  assert.equal(
    statusText(status, START + 187_200_000_000_000n),
    `daemon      berth 0.1.0, pid 4711, 83.9 MiB
up          2 d 4 h, since 2026-01-02 03:04:05.000 UTC
socket      /run/berth/berth.sock
root        /var/lib/berth
runtime     ready
network     not ready: NoNetwork: no configuration in /etc/cni/net.d
runtimes    runc (runc 1.1.5), kata (not available)
pods        12 ready, 1 notready
containers  24 running, 2 exited
sessions    2 exec, 1 portforward
images      9, 1.2 GiB
gzip        /usr/bin/igzip
warning     runc 1.1.5 has known holes [2J
`,
  )
})

test('an empty node says so', () => {
  const empty = { ...status, pods: {}, containers: { running: 0 }, images: 0, conditions: [], warnings: [] }
  const text = statusText(empty, START)
  for (const name of ['pods', 'containers', 'images']) assert.match(text, new RegExp(`^${name} +none$`, 'm'))
})
