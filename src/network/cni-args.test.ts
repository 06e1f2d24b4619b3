import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isCode } from '../base/errors.ts'
import { capabilityArgs, cniArgs } from './cni-args.ts'
import type { NetworkTarget } from './network.ts'

const target: NetworkTarget = {
  podId: 'ab12',
  metadata: { name: 'web', namespace: 'default', uid: 'u-1', attempt: 0 },
  netns: '/run/netns/x',
  portMappings: [],
}

test('CNI_ARGS names the pod', () => {
  assert.equal(
    cniArgs(target),
    'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=ab12;K8S_POD_UID=u-1',
  )
})

test('a name cannot smuggle an argument in', () => {
  for (const name of ['web;IP=10.0.0.1', 'a=b', 'a\nb', 'a\0b']) {
    assert.throws(
      () => cniArgs({ ...target, metadata: { ...target.metadata, name } }),
      error => isCode(error, 'invalid') && /K8S_POD_NAME in CNI_ARGS/.test(String(error)),
    )
  }
})

test('only ports with a host port are asked for, and the host address only when there is one', () => {
  const portMappings = [
    { protocol: 'tcp', containerPort: 80, hostPort: 0, hostIp: '' },
    { protocol: 'tcp', containerPort: 80, hostPort: 8080, hostIp: '' },
    { protocol: 'udp', containerPort: 53, hostPort: 5353, hostIp: '127.0.0.1' },
  ] as const
  assert.deepEqual(capabilityArgs({ ...target, portMappings }), {
    portMappings: [
      { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
      { hostPort: 5353, containerPort: 53, protocol: 'udp', hostIP: '127.0.0.1' },
    ],
  })
})

test('each rate comes with a burst, which the plugin requires', () => {
  assert.deepEqual(capabilityArgs(target), {})
  assert.deepEqual(capabilityArgs({ ...target, bandwidth: { egress: 1_000_000 } }), {
    bandwidth: { egressRate: 1_000_000, egressBurst: 2_147_483_647 },
  })
})
