import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import type { NodeView } from './services.ts'

test('Status: conditions, handlers with the default under two names, features', async context => {
  const { client } = await serve(context)
  const status = await client.runtime('Status', {})
  assert.deepEqual(status.status?.conditions, [
    { type: 'RuntimeReady', status: true, reason: '', message: '' },
    {
      type: 'NetworkReady',
      status: false,
      reason: 'NoNetworkConfiguration',
      message: 'no file in /etc/cni/net.d',
    },
  ])
  const features = { recursive_read_only_mounts: true, user_namespaces: false }
  assert.deepEqual(status.runtime_handlers, [
    { name: '', features },
    { name: 'runc', features },
  ])
  assert.deepEqual(status.features, {
    supplemental_groups_policy: true,
    user_namespaces_host_network: false,
  })
  assert.deepEqual(status.info, {})
  const { info } = await client.runtime('Status', { verbose: true })
  assert.deepEqual(JSON.parse(info.config!), { sandboxImage: 'none', stateDir: '/run/berth' })
})

test('RuntimeConfig names the cgroup driver, systemd too, whose number is 0', async context => {
  for (const [cgroupDriver, name] of [
    ['cgroupfs', 'CGROUPFS'],
    ['systemd', 'SYSTEMD'],
  ] as const) {
    const { client } = await serve(context, { services: fakeServices({ node: { cgroupDriver } }) })
    assert.deepEqual(await client.runtime('RuntimeConfig', {}), { linux: { cgroup_driver: name } })
  }
})

test('UpdateRuntimeConfig: an address range of pods, none, and what is not one', async context => {
  const seen: string[] = []
  const node: Partial<NodeView> = { setPodCidr: cidr => seen.push(cidr) }
  const { client } = await serve(context, { services: fakeServices({ node }) })
  const update = (pod_cidr: string) =>
    client.runtime('UpdateRuntimeConfig', { runtime_config: { network_config: { pod_cidr } } })
  await client.runtime('UpdateRuntimeConfig', {})
  await update('')
  await update('10.85.0.0/16')
  await update('10.85.0.0/16,fd00::/64')
  assert.deepEqual(seen, ['10.85.0.0/16', '10.85.0.0/16,fd00::/64'])
  for (const wrong of ['10.85.0.0', '10.85.0.0/33', 'fd00::/129', 'pods/8', '10.0.0.0/8/8', '10.0.0.0/-1']) {
    await assert.rejects(update(wrong), {
      code: 'invalid',
      message: /^runtime_config\.network_config\.pod_cidr: /,
    })
  }
})
