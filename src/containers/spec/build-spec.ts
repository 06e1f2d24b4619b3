import type { OciSpec } from '../../model/oci.ts'
import { buildAnnotations } from './annotations.ts'
import { buildDeviceRules, buildDevices } from './devices.ts'
import { buildMounts, rootfsPropagation } from './mounts.ts'
import { buildNamespaces } from './namespaces.ts'
import { buildProcess } from './process.ts'
import { checkResources, toOciResources } from './resources.ts'
import { buildSeccomp } from './seccomp.ts'
import { pathProtection } from './security.ts'
import type { SpecInput } from './spec.ts'

/**
 * The OCI runtime spec of one container, from its CRI request and what the node offers.
 * @throws BerthError invalid or precondition, naming the field of the request
 */
export function buildSpec(input: SpecInput): OciSpec {
  const process = buildProcess(input)
  const seccomp = buildSeccomp(input, process.capabilities?.bounding ?? [])
  const propagation = rootfsPropagation(input)
  const { config, host, defaults, selinux } = input
  if (config.resources !== undefined) checkResources('config.linux.resources', config.resources, host)
  const limits = config.resources === undefined ? {} : toOciResources(config.resources, host)
  return {
    ociVersion: '1.0.2',
    process,
    root: { path: input.rootfs, readonly: config.security.readonlyRootfs },
    mounts: buildMounts(input),
    annotations: buildAnnotations(input),
    linux: {
      ...buildNamespaces(input),
      devices: buildDevices(input),
      cgroupsPath: input.cgroupsPath,
      resources: {
        ...limits,
        devices: buildDeviceRules(input),
        ...(defaults.pidsLimit > 0 ? { pids: { limit: defaults.pidsLimit } } : {}),
      },
      ...pathProtection(input),
      ...(propagation === undefined ? {} : { rootfsPropagation: propagation }),
      ...(seccomp === undefined ? {} : { seccomp }),
      ...(selinux === undefined ? {} : { mountLabel: selinux.mount }),
    },
  }
}
