import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mayRelabel, parseContexts } from './selinux.ts'

test('the contexts of containers are those of the policy, or the usual ones', () => {
  const text =
    '# a comment\nprocess = "system_u:system_r:lxc_t:s0"\nfile = "system_u:object_r:lxc_file_t:s0"\nro_file="x"\n'
  assert.deepEqual(parseContexts(text), {
    process: 'system_u:system_r:lxc_t:s0',
    file: 'system_u:object_r:lxc_file_t:s0',
  })
  assert.deepEqual(parseContexts('process system_u\n'), {
    process: 'system_u:system_r:container_t:s0',
    file: 'system_u:object_r:container_file_t:s0',
  })
})

test('CVE-2021-43816: what belongs to the node, and what is ours, is relabelled for nobody', () => {
  const own = ['/var/lib/berth', '/data/run/berth']
  const may = (path: string) => mayRelabel(path, own)
  for (const path of [
    '/',
    '/etc',
    '/etc/hosts',
    '/usr/lib/x',
    '/home',
    '/var',
    '/var/lib',
    '/root',
    '/dev/sda',
    '/proc/1',
  ]) {
    assert.equal(may(path), false, path)
  }
  for (const path of ['/var/lib/berth', '/var/lib/berth/rootfs/x', '/data', '/data/run']) {
    assert.equal(may(path), false, path)
  }
  for (const path of [
    '/var/lib/kubelet/pods/u/etc-hosts',
    '/home/me',
    '/srv/data',
    '/tmp/x',
    '/etcetera',
    '/var/lib/berths',
  ]) {
    assert.equal(may(path), true, path)
  }
})
