import { invalid } from '../../base/errors.ts'
import type {
  Capabilities,
  ContainerConfig,
  ContainerMetadata,
  ContainerSecurity,
} from '../../model/container.ts'
import type { Capability__Output } from '../generated/runtime/v1/Capability.ts'
import type { ContainerConfig__Output } from '../generated/runtime/v1/ContainerConfig.ts'
import type { ContainerMetadata__Output } from '../generated/runtime/v1/ContainerMetadata.ts'
import type { KeyValue__Output } from '../generated/runtime/v1/KeyValue.ts'
import type { LinuxContainerSecurityContext__Output } from '../generated/runtime/v1/LinuxContainerSecurityContext.ts'
import {
  absolutePath,
  argument,
  boundedTexts,
  choice,
  each,
  line,
  logPart,
  matching,
  nonEmptyLine,
  objectName,
  present,
  relativePath,
} from './fields.ts'
import { toDevice, toMount } from './mounts.ts'
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
import { toSignal } from './signals.ts'

/** `vendor/class=device` of the Container Device Interface. */
const CDI_DEVICE = /^[A-Za-z0-9][A-Za-z0-9_.-]*\/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$/

/** Bytes; with the pod's directory before it, it has to be a path. */
const MAX_LOG_PATH = 1024

/** @throws BerthError invalid, naming the field */
export function toContainerConfig(field: string, config: ContainerConfig__Output | null): ContainerConfig {
  const wire = present(field, config)
  const image = present(`${field}.image`, wire.image)
  const resources = toResources(`${field}.linux.resources`, wire.linux?.resources ?? null)
  return {
    metadata: toMetadata(`${field}.metadata`, wire.metadata),
    image: nonEmptyLine(`${field}.image.image`, image.image),
    userSpecifiedImage: line(`${field}.image.user_specified_image`, image.user_specified_image),
    command: each(`${field}.command`, wire.command, argument),
    args: each(`${field}.args`, wire.args, argument),
    workingDir: toWorkingDir(`${field}.working_dir`, wire.working_dir),
    envs: each(`${field}.envs`, wire.envs, toEnv),
    mounts: each(`${field}.mounts`, wire.mounts, toMount),
    devices: each(`${field}.devices`, wire.devices, toDevice),
    cdiDevices: each(`${field}.CDI_devices`, wire.CDI_devices, (at, { name }) =>
      matching(`${at}.name`, name, CDI_DEVICE, 'vendor/class=device'),
    ),
    labels: boundedTexts(`${field}.labels`, wire.labels),
    annotations: boundedTexts(`${field}.annotations`, wire.annotations),
    logPath: toLogPath(`${field}.log_path`, wire.log_path),
    stdin: wire.stdin,
    stdinOnce: wire.stdin_once,
    tty: wire.tty,
    ...(resources === undefined ? {} : { resources }),
    security: toSecurity(`${field}.linux.security_context`, wire.linux?.security_context ?? null),
    stopSignal: toSignal(`${field}.stop_signal`, wire.stop_signal),
  }
}

function toLogPath(field: string, path: string): string {
  return path === '' ? '' : logPart(field, relativePath(field, path), MAX_LOG_PATH)
}

function toMetadata(field: string, metadata: ContainerMetadata__Output | null): ContainerMetadata {
  const wire = present(field, metadata)
  return { name: objectName(`${field}.name`, wire.name), attempt: wire.attempt }
}

function toEnv(field: string, { key, value }: KeyValue__Output): readonly [string, string] {
  nonEmptyLine(`${field}.key`, key)
  if (key.includes('=')) throw invalid(`${field}.key`, "must not contain '='")
  return [key, argument(`${field}.value`, value, Buffer.byteLength(key) + 1)]
}

/** A directory of /proc may be a way out of the container through an open descriptor (CVE-2024-21626). */
function toWorkingDir(field: string, dir: string): string {
  if (dir === '') return ''
  const path = absolutePath(field, dir)
  if (path === '/proc' || path.startsWith('/proc/')) throw invalid(field, 'must not be in /proc')
  return path
}

function toSecurity(field: string, wire: LinuxContainerSecurityContext__Output | null): ContainerSecurity {
  const profiles = toProfiles(field, wire)
  const selinux = toSelinux(`${field}.selinux_options`, wire?.selinux_options ?? null)
  const policy = wire?.supplemental_groups_policy ?? 'Merge'
  return {
    capabilities: toCapabilities(`${field}.capabilities`, wire?.capabilities ?? null),
    privileged: wire?.privileged ?? false,
    namespaces: toNamespaces(`${field}.namespace_options`, wire?.namespace_options ?? null),
    ...toUser(field, wire),
    supplementalGroups: toGroups(`${field}.supplemental_groups`, wire?.supplemental_groups ?? []),
    supplementalGroupsPolicy: choice(`${field}.supplemental_groups_policy`, policy, GROUPS_POLICIES),
    readonlyRootfs: wire?.readonly_rootfs ?? false,
    noNewPrivs: wire?.no_new_privs ?? false,
    maskedPaths: each(`${field}.masked_paths`, wire?.masked_paths ?? [], absolutePath),
    readonlyPaths: each(`${field}.readonly_paths`, wire?.readonly_paths ?? [], absolutePath),
    ...profiles,
    ...(selinux === undefined ? {} : { selinux }),
  }
}

function toUser(
  field: string,
  wire: LinuxContainerSecurityContext__Output | null,
): Pick<ContainerSecurity, 'runAsUser' | 'runAsGroup' | 'runAsUsername'> {
  const runAsUsername = line(`${field}.run_as_username`, wire?.run_as_username ?? '')
  const runAsUser = toId(`${field}.run_as_user`, wire?.run_as_user ?? null)
  const runAsGroup = toId(`${field}.run_as_group`, wire?.run_as_group ?? null)
  if (runAsUser !== undefined && runAsUsername !== '') {
    throw invalid(`${field}.run_as_username`, 'must be empty with run_as_user')
  }
  if (runAsGroup !== undefined && runAsUser === undefined && runAsUsername === '') {
    throw invalid(`${field}.run_as_group`, 'needs run_as_user or run_as_username')
  }
  return {
    runAsUsername,
    ...(runAsUser === undefined ? {} : { runAsUser }),
    ...(runAsGroup === undefined ? {} : { runAsGroup }),
  }
}

function toProfiles(
  field: string,
  wire: LinuxContainerSecurityContext__Output | null,
): Pick<ContainerSecurity, 'seccomp' | 'apparmor'> {
  if (wire === null) return {}
  const seccomp = toSeccomp(
    `${field}.seccomp`,
    wire.seccomp,
    `${field}.seccomp_profile_path`,
    wire.seccomp_profile_path,
  )
  const apparmor = toAppArmor(
    `${field}.apparmor`,
    wire.apparmor,
    `${field}.apparmor_profile`,
    wire.apparmor_profile,
  )
  return { ...(seccomp === undefined ? {} : { seccomp }), ...(apparmor === undefined ? {} : { apparmor }) }
}

/** With or without `CAP_`; which of them the kernel knows is seen when the container is made. */
function toCapabilities(field: string, wire: Capability__Output | null): Capabilities {
  const list = (name: keyof Capability__Output) =>
    each(`${field}.${name}`, wire?.[name] ?? [], (at, value) =>
      matching(at, value, /^[A-Za-z_]+$/, 'a capability like NET_ADMIN'),
    )
  return {
    add: list('add_capabilities'),
    drop: list('drop_capabilities'),
    addAmbient: list('add_ambient_capabilities'),
  }
}
