import { statSync } from 'node:fs'
import { errnoOf, invalid } from '../../base/errors.ts'
import type { OciDevice, OciDeviceRule, OciHook, OciMount, OciSpec } from '../../model/oci.ts'
import { toDevice } from '../spec/host-devices.ts'
import type { HostDevice } from '../spec/spec.ts'
import type { CdiDeviceNode, ContainerEdits } from './parse-spec.ts'

/** The spec with what CDI devices change in it, one after the other. */
export function applyCdiEdits(spec: OciSpec, edits: readonly ContainerEdits[]): OciSpec {
  return edits.reduce(applyOne, spec)
}

function applyOne(spec: OciSpec, edits: ContainerEdits): OciSpec {
  const { process: first, linux } = spec
  const nodes = edits.deviceNodes.map(hostDevice)
  const groups = [...(first.user.additionalGids ?? []), ...edits.additionalGids]
  return {
    ...spec,
    process: {
      ...first,
      env: withVariables(first.env, edits.env),
      user: groups.length === 0 ? first.user : { ...first.user, additionalGids: [...new Set(groups)] },
    },
    mounts: withMounts(spec.mounts, edits.mounts),
    ...(edits.hooks.length === 0 && spec.hooks === undefined ? {} : { hooks: withHooks(spec.hooks, edits) }),
    linux: {
      ...linux,
      devices: withDevices(linux.devices ?? [], nodes),
      resources: {
        ...linux.resources,
        devices: [...(linux.resources?.devices ?? []), ...nodes.map(ruleFor)],
      },
      ...(edits.intelRdt === undefined ? {} : { intelRdt: edits.intelRdt }),
    },
  }
}

/** The last value of a name counts. */
function withVariables(env: readonly string[], more: readonly string[]): string[] {
  const nameOf = (assignment: string) => assignment.slice(0, assignment.indexOf('='))
  return [...new Map([...env, ...more].map(assignment => [nameOf(assignment), assignment])).values()]
}

/** One per place; parents stand before what lies in them, as in the rest of the spec. */
function withMounts(mounts: readonly OciMount[], more: readonly OciMount[]): OciMount[] {
  const replaced = new Set(more.map(({ destination }) => destination))
  const depth = ({ destination }: OciMount) => destination.split('/').length
  return [...mounts.filter(({ destination }) => !replaced.has(destination)), ...more].sort(
    (a, b) => depth(a) - depth(b),
  )
}

function withHooks(hooks: OciSpec['hooks'] = {}, edits: ContainerEdits): Record<string, OciHook[]> {
  const all: Record<string, OciHook[]> = { ...hooks }
  for (const { name, hook } of edits.hooks) all[name] = [...(all[name] ?? []), hook]
  return all
}

function withDevices(devices: readonly OciDevice[], nodes: readonly HostDevice[]): OciDevice[] {
  const replaced = new Set(nodes.map(({ path }) => path))
  return [
    ...devices.filter(({ path }) => !replaced.has(path)),
    ...nodes.map(({ path, type, major, minor, mode, uid, gid }) => ({
      path,
      type,
      major,
      minor,
      fileMode: mode,
      uid,
      gid,
    })),
  ]
}

function ruleFor({ type, major, minor, access }: HostDevice): OciDeviceRule {
  return { allow: true, type, major, minor, access }
}

/** @throws BerthError invalid if something is left to the node of the host, which is not there or no device */
function hostDevice(node: CdiDeviceNode): HostDevice {
  const { path, access, type, major, minor } = node
  const found = nodeAt(node)
  const known = { type: type ?? found?.type, major: major ?? found?.major, minor: minor ?? found?.minor }
  if (known.type === undefined || known.major === undefined || known.minor === undefined) {
    throw invalid('CDI device', `${node.hostPath} is no device of this node, and its numbers are not given`)
  }
  return {
    path,
    access,
    type: known.type,
    major: known.major,
    minor: known.minor,
    mode: node.mode ?? found?.mode ?? 0o666,
    uid: node.uid ?? found?.uid ?? 0,
    gid: node.gid ?? found?.gid ?? 0,
  }
}

function nodeAt({ hostPath, path, access }: CdiDeviceNode): HostDevice | undefined {
  try {
    return toDevice(path, statSync(hostPath), access)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw error
  }
}
