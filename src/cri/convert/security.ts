import { invalid } from '../../base/errors.ts'
import type { NamespaceMode, NamespaceOptions, UserNamespace } from '../../model/pod.ts'
import type { AppArmorProfile, IdMapping, SeccompProfile, SelinuxOptions } from '../../model/security.ts'
import type { IDMapping, IDMapping__Output } from '../generated/runtime/v1/IDMapping.ts'
import type { Int64Value__Output } from '../generated/runtime/v1/Int64Value.ts'
import type { NamespaceMode as WireMode } from '../generated/runtime/v1/NamespaceMode.ts'
import type { NamespaceOption, NamespaceOption__Output } from '../generated/runtime/v1/NamespaceOption.ts'
import type { SELinuxOption__Output } from '../generated/runtime/v1/SELinuxOption.ts'
import type { SecurityProfile__Output } from '../generated/runtime/v1/SecurityProfile.ts'
import type { UserNamespace__Output } from '../generated/runtime/v1/UserNamespace.ts'
import { absolutePath, choice, each, integer, line, matching, nonEmptyLine } from './fields.ts'

const MODES: Readonly<Record<string, NamespaceMode>> = {
  POD: 'pod',
  CONTAINER: 'container',
  NODE: 'node',
  TARGET: 'target',
}
/** Modes of namespaces that belong to the pod. */
const POD_OR_NODE: Readonly<Record<string, NamespaceMode>> = { POD: 'pod', NODE: 'node' }

const WIRE_MODES: Readonly<Record<NamespaceMode, WireMode>> = {
  pod: 'POD',
  container: 'CONTAINER',
  node: 'NODE',
  target: 'TARGET',
}

/** What the interface means by an absent NamespaceOption. */
const DEFAULT_NAMESPACES: NamespaceOptions = { network: 'pod', pid: 'pod', ipc: 'pod', targetId: '' }

export const GROUPS_POLICIES = { Merge: 'merge', Strict: 'strict' } as const

/** Ids beyond this are not accepted anywhere in Kubernetes; the kernel's -1 is among them. */
const MAX_ID = 2 ** 31 - 1
/** The kernel's ids have 32 bits. */
const ID_SPACE = 2 ** 32

export function toNamespaces(field: string, wire: NamespaceOption__Output | null): NamespaceOptions {
  if (wire === null) return DEFAULT_NAMESPACES
  const pid = choice(`${field}.pid`, wire.pid, MODES)
  if (pid === 'target') nonEmptyLine(`${field}.target_id`, wire.target_id)
  const options: NamespaceOptions = {
    network: choice(`${field}.network`, wire.network, POD_OR_NODE),
    pid,
    ipc: choice(`${field}.ipc`, wire.ipc, POD_OR_NODE),
    targetId: wire.target_id,
  }
  if (wire.userns_options === null) return options
  return { ...options, user: toUserNamespace(`${field}.userns_options`, wire.userns_options) }
}

/** One mapping of each kind, with root in it: what one id-mapped mount and one container engine can express. */
function toUserNamespace(field: string, wire: UserNamespace__Output): UserNamespace {
  const mode = choice(`${field}.mode`, wire.mode, POD_OR_NODE)
  const uids = toIdMappings(`${field}.uids`, wire.uids)
  const gids = toIdMappings(`${field}.gids`, wire.gids)
  for (const [name, mappings] of Object.entries({ uids, gids })) {
    const expected = mode === 'node' ? 0 : 1
    if (mappings.length !== expected) {
      throw invalid(`${field}.${name}`, `mode ${wire.mode} takes ${expected} of them, got ${mappings.length}`)
    }
    if (mappings.some(mapping => mapping.containerId !== 0)) {
      throw invalid(`${field}.${name}[0].container_id`, 'must be 0: root has to be mapped')
    }
  }
  return { mode, uids, gids }
}

export function toIdMappings(field: string, wire: readonly IDMapping__Output[]): IdMapping[] {
  return each(field, wire, (at, { container_id, host_id, length }) => {
    if (length === 0) throw invalid(`${at}.length`, 'must be at least 1')
    if (Math.max(container_id, host_id) + length > ID_SPACE) {
      throw invalid(`${at}.length`, `the mapping ends beyond the last id, ${ID_SPACE - 1}`)
    }
    return { containerId: container_id, hostId: host_id, length }
  })
}

export function fromIdMappings(mappings: readonly IdMapping[]): IDMapping[] {
  return mappings.map(({ containerId, hostId, length }) => ({
    container_id: containerId,
    host_id: hostId,
    length,
  }))
}

/** Echoes the request: kubelet replaces a pod whose status has another network mode than it asked for. */
export function fromNamespaces(options: NamespaceOptions): NamespaceOption {
  const { user } = options
  return {
    network: WIRE_MODES[options.network],
    pid: WIRE_MODES[options.pid],
    ipc: WIRE_MODES[options.ipc],
    target_id: options.targetId,
    userns_options:
      user === undefined
        ? null
        : { mode: WIRE_MODES[user.mode], uids: fromIdMappings(user.uids), gids: fromIdMappings(user.gids) },
  }
}

/** `deprecated` is the older text field, which counts when the message is absent. undefined is unconfined. */
export function toSeccomp(
  field: string,
  wire: SecurityProfile__Output | null,
  deprecatedField: string,
  deprecated: string,
): SeccompProfile | undefined {
  const profile = toProfile(field, wire, deprecatedField, deprecated)
  if (profile?.kind !== 'localhost') return profile
  return { kind: 'localhost', path: absolutePath(profile.field, profile.ref) }
}

/** As `toSeccomp`; undefined leaves the choice to the runtime. */
export function toAppArmor(
  field: string,
  wire: SecurityProfile__Output | null,
  deprecatedField: string,
  deprecated: string,
): AppArmorProfile | undefined {
  const profile = toProfile(field, wire, deprecatedField, deprecated)
  if (profile?.kind !== 'localhost') return profile
  // kubelet sends the bare name; others, as critest, the prefix of the deprecated field with it.
  const name = profile.ref.startsWith(LOCALHOST) ? profile.ref.slice(LOCALHOST.length) : profile.ref
  return { kind: 'localhost', name: nonEmptyLine(profile.field, name) }
}

type Profile =
  | { kind: 'runtime-default' }
  | { kind: 'unconfined' }
  | { kind: 'localhost'; field: string; ref: string }

const LOCALHOST = 'localhost/'

const PROFILE_KINDS = {
  RuntimeDefault: 'runtime-default',
  Unconfined: 'unconfined',
  Localhost: 'localhost',
} as const

function toProfile(
  field: string,
  wire: SecurityProfile__Output | null,
  deprecatedField: string,
  deprecated: string,
): Profile | undefined {
  if (wire === null) return toDeprecatedProfile(deprecatedField, deprecated)
  const kind = choice(`${field}.profile_type`, wire.profile_type, PROFILE_KINDS)
  if (kind === 'localhost') return { kind, field: `${field}.localhost_ref`, ref: wire.localhost_ref }
  if (wire.localhost_ref !== '') throw invalid(`${field}.localhost_ref`, 'must be empty unless Localhost')
  return { kind }
}

function toDeprecatedProfile(field: string, text: string): Profile | undefined {
  if (text === '') return undefined
  if (text === 'runtime/default' || text === 'docker/default') return { kind: 'runtime-default' }
  if (text === 'unconfined') return { kind: 'unconfined' }
  if (text.startsWith(LOCALHOST)) return { kind: 'localhost', field, ref: text.slice(LOCALHOST.length) }
  throw invalid(field, `expected runtime/default, unconfined or localhost/…, got ${JSON.stringify(text)}`)
}

/** The first three parts of a label cannot hold a colon; the level can. */
export function toSelinux(field: string, wire: SELinuxOption__Output | null): SelinuxOptions | undefined {
  if (wire === null) return undefined
  const part = (name: 'user' | 'role' | 'type') =>
    matching(`${field}.${name}`, wire[name], /^[A-Za-z0-9_.-]*$/, 'letters, digits and _.-')
  return {
    user: part('user'),
    role: part('role'),
    type: part('type'),
    level: line(`${field}.level`, wire.level),
  }
}

/** uid or gid; undefined when it was not given. */
export function toId(field: string, wire: Int64Value__Output | null): number | undefined {
  return wire === null ? undefined : integer(field, wire.value, 0, MAX_ID)
}

export function toGroups(field: string, wire: readonly string[]): number[] {
  return each(field, wire, (at, value) => integer(at, value, 0, MAX_ID))
}
