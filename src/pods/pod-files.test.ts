import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { dict } from '../base/dict.ts'
import type { PodConfig } from '../model/pod.ts'
import { resolvConf } from './pod-files.ts'
import { sysctlsOf } from './sysctls.ts'

test('resolv.conf has the DNS configuration, or the node’s when there is none', () => {
  const dns = { servers: ['10.0.0.1', '10.0.0.2'], searches: ['a.local', 'b.local'], options: ['ndots:5'] }
  assert.equal(
    resolvConf(dns),
    'search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n',
  )
  assert.equal(resolvConf({ servers: ['1.1.1.1'], searches: [], options: [] }), 'nameserver 1.1.1.1\n')
  const node = readFileSync('/etc/resolv.conf', 'utf8')
  assert.equal(resolvConf(undefined), node)
  assert.equal(resolvConf({ servers: [], searches: [], options: [] }), node)
})

test('default sysctls go only where the pod has a namespace of its own; its own win', () => {
  const defaults = dict([
    ['net.ipv4.ip_unprivileged_port_start', '0'],
    ['kernel.shm_rmid_forced', '1'],
    ['vm.overcommit_memory', '1'],
  ])
  const config = (network: 'pod' | 'node', ipc: 'pod' | 'node', own: Record<string, string> = {}) =>
    ({
      namespaces: { network, ipc, pid: 'container', targetId: '' },
      sysctls: dict(own),
    }) as unknown as PodConfig
  const of = (pod: PodConfig) => ({ ...sysctlsOf(defaults, pod) })
  assert.deepEqual(of(config('pod', 'pod')), {
    'net.ipv4.ip_unprivileged_port_start': '0',
    'kernel.shm_rmid_forced': '1',
  })
  assert.deepEqual(of(config('node', 'pod')), { 'kernel.shm_rmid_forced': '1' })
  assert.deepEqual(of(config('node', 'node')), {})
  assert.deepEqual(of(config('pod', 'node', { 'net.ipv4.ip_unprivileged_port_start': '1024' })), {
    'net.ipv4.ip_unprivileged_port_start': '1024',
  })
})
