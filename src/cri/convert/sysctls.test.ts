import { refuses, wire } from '../../../test/support/cri-wire.ts'
import type { PodConfig } from '../../model/pod.ts'
import type { LinuxPodSandboxConfig } from '../generated/runtime/v1/LinuxPodSandboxConfig.ts'
import type { PodSandboxConfig } from '../generated/runtime/v1/PodSandboxConfig.ts'
import { toPodConfig } from './pod-config.ts'

const metadata = { name: 'web', uid: 'u1', namespace: 'default' }

function convert(config: PodSandboxConfig | null): PodConfig {
  return toPodConfig('config', wire.runPod({ config }).config, 'cgroupfs')
}

const linux = (config: LinuxPodSandboxConfig): PodSandboxConfig => ({ metadata, linux: config })

refuses(convert, [
  [
    'a sysctl of the node',
    linux({ sysctls: { 'kernel.core_pattern': '|/x' } }),
    'config.linux.sysctls[kernel.core_pattern]: is not',
  ],
  [
    'a sysctl that begins alike',
    linux({ sysctls: { netx: '1' } }),
    'config.linux.sysctls: expected sysctl names',
  ],
  [
    'a path as a sysctl',
    linux({ sysctls: { 'net.a../../x': '1' } }),
    'config.linux.sysctls: expected sysctl names',
  ],
  [
    'a long sysctl',
    linux({ sysctls: { [`net.${'x'.repeat(256)}`]: '1' } }),
    'config.linux.sysctls: a key must be at most',
  ],
  [
    'a second sysctl in a value',
    linux({ sysctls: { 'net.core.somaxconn': '1+kernel.x=2' } }),
    "config.linux.sysctls[net.core.somaxconn]: must not contain '+'",
  ],
  [
    'a second line in a value',
    linux({ sysctls: { 'net.core.somaxconn': '1\n2' } }),
    'config.linux.sysctls[net.core.somaxconn]: must not contain control',
  ],
  [
    'a long value',
    linux({ sysctls: { 'net.a': 'x'.repeat(4097) } }),
    'config.linux.sysctls[net.a]: must be at most 4096',
  ],
  [
    'a network sysctl on the network of the node',
    linux({
      sysctls: { 'net.core.somaxconn': '1' },
      security_context: { namespace_options: { network: 'NODE' } },
    }),
    'config.linux.sysctls[net.core.somaxconn]: cannot be set in a pod that uses the network namespace of the node',
  ],
  [
    'a slashed network sysctl on the network of the node',
    linux({
      sysctls: { 'net/core/somaxconn': '1' },
      security_context: { namespace_options: { network: 'NODE' } },
    }),
    'config.linux.sysctls[net/core/somaxconn]: cannot be set',
  ],
  [
    'an IPC sysctl on the IPC of the node',
    linux({
      sysctls: { 'fs.mqueue.msg_max': '1' },
      security_context: { namespace_options: { ipc: 'NODE' } },
    }),
    'config.linux.sysctls[fs.mqueue.msg_max]: cannot be set in a pod that uses the ipc namespace of the node',
  ],
])
