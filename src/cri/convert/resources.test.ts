import { refuses, wire } from '../../../test/support/cri-wire.ts'
import type { ContainerConfig } from '../../model/container.ts'
import type { ContainerConfig as WireConfig } from '../generated/runtime/v1/ContainerConfig.ts'
import type { LinuxContainerResources } from '../generated/runtime/v1/LinuxContainerResources.ts'
import { toContainerConfig } from './container-config.ts'

const required: WireConfig = { metadata: { name: 'main' }, image: { image: 'busybox' } }

function convert(config: WireConfig): ContainerConfig {
  return toContainerConfig('config', wire.createContainer({ config }).config)
}

const resources = (limits: LinuxContainerResources): WireConfig => ({
  ...required,
  linux: { resources: limits },
})

refuses(convert, [
  [
    'a short period',
    resources({ cpu_period: 999 }),
    'config.linux.resources.cpu_period: must be between 1000 and 1000000, got 999',
  ],
  [
    'a negative period',
    resources({ cpu_period: -1 }),
    'config.linux.resources.cpu_period: must be at least 0',
  ],
  ['a short quota', resources({ cpu_quota: 999 }), 'config.linux.resources.cpu_quota: must be at least 1000'],
  ['a negative quota', resources({ cpu_quota: -2 }), 'config.linux.resources.cpu_quota: must be at least -1'],
  [
    'a negative limit',
    resources({ memory_limit_in_bytes: -2 }),
    'config.linux.resources.memory_limit_in_bytes: must be at least -1',
  ],
  [
    'a negative swap limit',
    resources({ memory_swap_limit_in_bytes: '-9' }),
    'config.linux.resources.memory_swap_limit_in_bytes: must be at least -1, got -9',
  ],
  [
    'a path as a list of processors',
    resources({ cpuset_cpus: '0,/x' }),
    'config.linux.resources.cpuset_cpus: expected a list like 0-2,4',
  ],
  [
    'a list of nodes with a hole',
    resources({ cpuset_mems: '0,,1' }),
    'config.linux.resources.cpuset_mems: expected a list',
  ],
  [
    'a size without a unit',
    resources({ hugepage_limits: [{ page_size: '2M' }] }),
    'config.linux.resources.hugepage_limits[0].page_size: expected a size like 2MB',
  ],
  [
    'a path as a cgroup file',
    resources({ unified: { '../memory.max': '1' } }),
    'config.linux.resources.unified: expected names of cgroup files',
  ],
  [
    'a second line for a cgroup file',
    resources({ unified: { 'memory.high': '1\n2' } }),
    'config.linux.resources.unified[memory.high]: must not contain control',
  ],
])
