import { posix } from 'node:path'
import { invalid } from '../../base/errors.ts'
import type { DnsConfig, PodConfig, PodMetadata, PortMapping } from '../../model/pod.ts'
import { slicePath } from '../../model/slice.ts'
import type { DNSConfig__Output } from '../generated/runtime/v1/DNSConfig.ts'
import type { LinuxPodSandboxConfig__Output } from '../generated/runtime/v1/LinuxPodSandboxConfig.ts'
import type { PodSandboxConfig__Output } from '../generated/runtime/v1/PodSandboxConfig.ts'
import type { PodSandboxMetadata__Output } from '../generated/runtime/v1/PodSandboxMetadata.ts'
import type { PortMapping__Output } from '../generated/runtime/v1/PortMapping.ts'
import {
  absolutePath,
  boundedTexts,
  choice,
  each,
  integer,
  ipAddress,
  logPart,
  matching,
  noLonger,
  objectName,
  present,
  word,
} from './fields.ts'
import { toResources } from './resources.ts'
import {
  GROUPS_POLICIES,
  toAppArmor,
  toGroups,
  toId,
  toNamespaces,
  toSeccomp,
  toSelinux,
} from './security.ts'
import { toSysctls } from './sysctls.ts'

export type CgroupDriver = 'cgroupfs' | 'systemd'

const PROTOCOLS = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const

/** HOST_NAME_MAX */
const MAX_HOSTNAME = 64

/** Bytes of a directory in which more paths are made: all of it has to be a path. */
const MAX_DIRECTORY = 3000

/** @throws BerthError invalid, naming the field */
export function toPodConfig(
  field: string,
  config: PodSandboxConfig__Output | null,
  driver: CgroupDriver,
): PodConfig {
  const wire = present(field, config)
  const dns = toDns(`${field}.dns_config`, wire.dns_config)
  return {
    metadata: toMetadata(`${field}.metadata`, wire.metadata),
    hostname: toHostname(`${field}.hostname`, wire.hostname),
    logDirectory: toLogDirectory(`${field}.log_directory`, wire.log_directory),
    ...(dns === undefined ? {} : { dns }),
    portMappings: each(`${field}.port_mappings`, wire.port_mappings, toPortMapping),
    labels: boundedTexts(`${field}.labels`, wire.labels),
    annotations: boundedTexts(`${field}.annotations`, wire.annotations),
    ...toLinux(`${field}.linux`, wire.linux, driver),
  }
}

function toMetadata(field: string, metadata: PodSandboxMetadata__Output | null): PodMetadata {
  const wire = present(field, metadata)
  return {
    name: objectName(`${field}.name`, wire.name),
    uid: objectName(`${field}.uid`, wire.uid),
    namespace: objectName(`${field}.namespace`, wire.namespace),
    attempt: wire.attempt,
  }
}

function toLogDirectory(field: string, path: string): string {
  return path === '' ? '' : logPart(field, absolutePath(field, path), MAX_DIRECTORY)
}

function toHostname(field: string, hostname: string): string {
  return matching(
    field,
    noLonger(field, hostname, MAX_HOSTNAME),
    /^[A-Za-z0-9._-]*$/,
    'letters, digits, dots and hyphens',
  )
}

/** undefined when nothing is given: the pod gets the node's resolv.conf. */
function toDns(field: string, wire: DNSConfig__Output | null): DnsConfig | undefined {
  if (wire === null) return undefined
  const dns = {
    servers: each(`${field}.servers`, wire.servers, ipAddress),
    searches: each(`${field}.searches`, wire.searches, word),
    options: each(`${field}.options`, wire.options, word),
  }
  return Object.values(dns).every(list => list.length === 0) ? undefined : dns
}

function toPortMapping(field: string, wire: PortMapping__Output): PortMapping {
  const hostPort = integer(`${field}.host_port`, wire.host_port, 0, 65535)
  return {
    protocol: choice(`${field}.protocol`, wire.protocol, PROTOCOLS),
    containerPort: integer(`${field}.container_port`, wire.container_port, hostPort === 0 ? 0 : 1, 65535),
    hostPort,
    hostIp: wire.host_ip === '' ? '' : ipAddress(`${field}.host_ip`, wire.host_ip),
  }
}

type LinuxPart = Omit<
  PodConfig,
  'metadata' | 'hostname' | 'logDirectory' | 'dns' | 'portMappings' | 'labels' | 'annotations'
>

function toLinux(field: string, wire: LinuxPodSandboxConfig__Output | null, driver: CgroupDriver): LinuxPart {
  const security = toSecurity(`${field}.security_context`, wire)
  const overhead = toResources(`${field}.overhead`, wire?.overhead ?? null)
  const resources = toResources(`${field}.resources`, wire?.resources ?? null)
  return {
    ...security,
    cgroupParent: toCgroupParent(`${field}.cgroup_parent`, wire?.cgroup_parent ?? '', driver),
    sysctls: toSysctls(`${field}.sysctls`, wire?.sysctls ?? {}, security.namespaces),
    ...(overhead === undefined ? {} : { overhead }),
    ...(resources === undefined ? {} : { resources }),
  }
}

function toSecurity(
  field: string,
  linux: LinuxPodSandboxConfig__Output | null,
): Omit<LinuxPart, 'cgroupParent' | 'sysctls' | 'overhead' | 'resources'> {
  const wire = linux?.security_context ?? null
  const runAsUser = toId(`${field}.run_as_user`, wire?.run_as_user ?? null)
  const runAsGroup = toId(`${field}.run_as_group`, wire?.run_as_group ?? null)
  if (runAsGroup !== undefined && runAsUser === undefined) {
    throw invalid(`${field}.run_as_group`, 'needs run_as_user')
  }
  const seccompPath = wire?.seccomp_profile_path ?? ''
  const seccomp = toSeccomp(
    `${field}.seccomp`,
    wire?.seccomp ?? null,
    `${field}.seccomp_profile_path`,
    seccompPath,
  )
  const apparmor = toAppArmor(`${field}.apparmor`, wire?.apparmor ?? null, '', '')
  const selinux = toSelinux(`${field}.selinux_options`, wire?.selinux_options ?? null)
  const policy = wire?.supplemental_groups_policy ?? 'Merge'
  return {
    namespaces: toNamespaces(`${field}.namespace_options`, wire?.namespace_options ?? null),
    privileged: wire?.privileged ?? false,
    readonlyRootfs: wire?.readonly_rootfs ?? false,
    supplementalGroups: toGroups(`${field}.supplemental_groups`, wire?.supplemental_groups ?? []),
    supplementalGroupsPolicy: choice(`${field}.supplemental_groups_policy`, policy, GROUPS_POLICIES),
    ...(runAsUser === undefined ? {} : { runAsUser }),
    ...(runAsGroup === undefined ? {} : { runAsGroup }),
    ...(seccomp === undefined ? {} : { seccomp }),
    ...(apparmor === undefined ? {} : { apparmor }),
    ...(selinux === undefined ? {} : { selinux }),
  }
}

/** A colon would separate the parts of the name that systemd's driver builds from it. */
function toCgroupParent(field: string, parent: string, driver: CgroupDriver): string {
  if (parent === '') return ''
  if (parent.includes(':')) throw invalid(field, "must not contain ':'")
  if (driver === 'systemd') {
    // kubelet sends the whole path, others the name alone, which spells it out.
    const path = slicePath(posix.basename(parent))
    if (path === undefined) {
      throw invalid(
        field,
        'must end in the name of a slice, such as kubepods-pod1.slice, with the systemd cgroup driver',
      )
    }
    return noLonger(field, path, MAX_DIRECTORY)
  }
  const path = noLonger(field, absolutePath(field, parent), MAX_DIRECTORY)
  if (path.endsWith('.slice')) throw invalid(field, 'must not end in .slice with the cgroupfs cgroup driver')
  return path
}
