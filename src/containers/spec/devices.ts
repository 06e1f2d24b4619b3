import type { OciDevice, OciDeviceRule } from '../../model/oci.ts'
import type { HostDevice, SpecInput } from './spec.ts'

/** The nodes that every OCI runtime makes in /dev, the pseudo terminals, and mknod without use. */
const DEFAULT_RULES: readonly OciDeviceRule[] = [
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' }, // null
  { allow: true, type: 'c', major: 1, minor: 5, access: 'rwm' }, // zero
  { allow: true, type: 'c', major: 1, minor: 7, access: 'rwm' }, // full
  { allow: true, type: 'c', major: 1, minor: 8, access: 'rwm' }, // random
  { allow: true, type: 'c', major: 1, minor: 9, access: 'rwm' }, // urandom
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' }, // tty
  { allow: true, type: 'c', major: 5, minor: 2, access: 'rwm' }, // ptmx
  { allow: true, type: 'c', major: 136, access: 'rwm' }, // pts
]

/** Nodes to make in the container's /dev. One per path; a requested one goes before one of the host. */
export function buildDevices({ config, devices, host }: SpecInput): OciDevice[] {
  const byPath = new Map<string, OciDevice>()
  const all = config.security.privileged ? [...host.devices, ...devices] : devices
  for (const device of all) byPath.set(device.path, ociDevice(device))
  return [...byPath.values()]
}

/** First match from the end wins, so "deny everything" stands first. */
export function buildDeviceRules({ config, devices }: SpecInput): OciDeviceRule[] {
  if (config.security.privileged) return [{ allow: true, access: 'rwm' }]
  const requested = devices.map(({ type, major, minor, access }) => ({
    allow: true,
    type,
    major,
    minor,
    access,
  }))
  return [{ allow: false, access: 'rwm' }, ...DEFAULT_RULES, ...requested]
}

function ociDevice({ path, type, major, minor, mode, uid, gid }: HostDevice): OciDevice {
  return { path, type, major, minor, fileMode: mode, uid, gid }
}
