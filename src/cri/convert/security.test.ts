import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refuses, wire } from '../../../test/support/cri-wire.ts'
import type { PodConfig } from '../../model/pod.ts'
import type { LinuxSandboxSecurityContext } from '../generated/runtime/v1/LinuxSandboxSecurityContext.ts'
import type { PodSandboxConfig } from '../generated/runtime/v1/PodSandboxConfig.ts'
import type { UserNamespace } from '../generated/runtime/v1/UserNamespace.ts'
import { toPodConfig } from './pod-config.ts'

const metadata = { name: 'web', uid: 'u1', namespace: 'default' }

function convert(config: PodSandboxConfig | null): PodConfig {
  return toPodConfig('config', wire.runPod({ config }).config, 'cgroupfs')
}

const security = (context: LinuxSandboxSecurityContext): PodSandboxConfig => ({
  metadata,
  linux: { security_context: context },
})
const userns = (options: UserNamespace) => security({ namespace_options: { userns_options: options } })
const one = [{ container_id: 0, host_id: 100_000, length: 65_536 }]
const other = [{ container_id: 5, host_id: 100_000, length: 65_536 }]

test('the deprecated seccomp field counts when the message is absent', () => {
  const seccomp = (context: LinuxSandboxSecurityContext) =>
    convert({ metadata, linux: { security_context: context } }).seccomp
  assert.equal(seccomp({ seccomp_profile_path: '' }), undefined)
  assert.deepEqual(seccomp({ seccomp_profile_path: 'unconfined' }), { kind: 'unconfined' })
  assert.deepEqual(seccomp({ seccomp_profile_path: 'docker/default' }), { kind: 'runtime-default' })
  const local = { seccomp_profile_path: 'localhost//profiles/a.json' }
  assert.deepEqual(seccomp(local), { kind: 'localhost', path: '/profiles/a.json' })
  assert.deepEqual(seccomp({ ...local, seccomp: { profile_type: 'Unconfined' } }), { kind: 'unconfined' })
})

refuses(convert, [
  [
    'a network per container',
    security({ namespace_options: { network: 'CONTAINER' } }),
    'config.linux.security_context.namespace_options.network: expected one of POD, NODE',
  ],
  [
    'an IPC per container',
    security({ namespace_options: { ipc: 'TARGET' } }),
    'config.linux.security_context.namespace_options.ipc: expected one of POD, NODE',
  ],
  [
    'a target without an id',
    security({ namespace_options: { pid: 'TARGET' } }),
    'config.linux.security_context.namespace_options.target_id: must not be empty',
  ],
  [
    'a user namespace per container',
    userns({ mode: 'CONTAINER', uids: one, gids: one }),
    'config.linux.security_context.namespace_options.userns_options.mode: expected one of POD, NODE',
  ],
  [
    'a user namespace without mappings',
    userns({ mode: 'POD' }),
    'config.linux.security_context.namespace_options.userns_options.uids: mode POD takes 1 of them, got 0',
  ],
  [
    'two gid mappings',
    userns({ mode: 'POD', uids: one, gids: [...one, ...one] }),
    'config.linux.security_context.namespace_options.userns_options.gids: mode POD takes 1 of them, got 2',
  ],
  [
    'mappings onto the node',
    userns({ mode: 'NODE', uids: one }),
    'config.linux.security_context.namespace_options.userns_options.uids: mode NODE takes 0 of them',
  ],
  [
    'root that is not mapped',
    userns({ mode: 'POD', uids: other, gids: one }),
    'config.linux.security_context.namespace_options.userns_options.uids[0].container_id: must be 0',
  ],
  [
    'an empty mapping',
    userns({ mode: 'POD', uids: [{ ...one[0], length: 0 }], gids: one }),
    'config.linux.security_context.namespace_options.userns_options.uids[0].length: must be at least 1',
  ],
  [
    'a mapping beyond the last id',
    userns({ mode: 'POD', uids: one, gids: [{ container_id: 0, host_id: 2, length: 4_294_967_295 }] }),
    'config.linux.security_context.namespace_options.userns_options.gids[0].length: the mapping ends beyond',
  ],
  [
    'a group without a user',
    security({ run_as_group: { value: 1 } }),
    'config.linux.security_context.run_as_group: needs run_as_user',
  ],
  [
    'a negative user',
    security({ run_as_user: { value: -1 } }),
    'config.linux.security_context.run_as_user: must be between 0 and 2147483647, got -1',
  ],
  [
    'a user beyond int32',
    security({ run_as_user: { value: 2_147_483_648 } }),
    'config.linux.security_context.run_as_user: must be between',
  ],
  [
    'a group beyond int32',
    security({ supplemental_groups: [1, '4294967296'] }),
    'config.linux.security_context.supplemental_groups[1]: must be between',
  ],
  [
    'an unknown groups policy',
    security({ supplemental_groups_policy: 7 as 0 }),
    'config.linux.security_context.supplemental_groups_policy: expected one of Merge, Strict, got 7',
  ],
  [
    'a relative seccomp profile',
    security({ seccomp: { profile_type: 'Localhost', localhost_ref: 'a.json' } }),
    'config.linux.security_context.seccomp.localhost_ref: must be an absolute path',
  ],
  [
    'a profile that does not count',
    security({ seccomp: { profile_type: 'RuntimeDefault', localhost_ref: '/a' } }),
    'config.linux.security_context.seccomp.localhost_ref: must be empty unless Localhost',
  ],
  [
    'an unknown kind of profile',
    security({ seccomp: { profile_type: 5 as 0 } }),
    'config.linux.security_context.seccomp.profile_type: expected one of',
  ],
  [
    'an unknown deprecated profile',
    security({ seccomp_profile_path: 'strict' }),
    'config.linux.security_context.seccomp_profile_path: expected runtime/default',
  ],
  [
    'an AppArmor profile without a name',
    security({ apparmor: { profile_type: 'Localhost' } }),
    'config.linux.security_context.apparmor.localhost_ref: must not be empty',
  ],
  [
    'an AppArmor profile with a prefix and no name',
    security({ apparmor: { profile_type: 'Localhost', localhost_ref: 'localhost/' } }),
    'config.linux.security_context.apparmor.localhost_ref: must not be empty',
  ],
  [
    'a colon in an SELinux type',
    security({ selinux_options: { type: 'a:b' } }),
    'config.linux.security_context.selinux_options.type: expected letters',
  ],
  [
    'a line break in an SELinux level',
    security({ selinux_options: { level: 'a\nb' } }),
    'config.linux.security_context.selinux_options.level: must not contain control',
  ],
])
