import type { CniNetwork, CniPlugin } from './cni-config.ts'

/**
 * Whether the pod's network namespace may be destroyed first and DEL called without one. That saves the wait for the
 * kernel's removal of the interface (about 35 ms per pod), but a plugin that learns what to remove from inside the
 * namespace then leaves it behind for ever. So: only plugins known to keep nothing on the host but what dies with
 * the namespace or what they find by the container id alone.
 */
export function netnsFirstDelIsSafe(network: CniNetwork): boolean {
  return network.plugins.every(
    plugin =>
      UNSAFE_MEMBERS.get(plugin.type)?.every(member => isOff(plugin, member)) === true &&
      (plugin.ipamType === undefined || SAFE_IPAM.has(plugin.ipamType)),
  )
}

// host-local finds its files by container id and `static` keeps nothing. `dhcp` sends its release from the namespace.
const SAFE_IPAM: ReadonlySet<string> = new Set(['host-local', 'static'])

/** The known plugins, each with the members of its configuration that make it unsafe. */
const UNSAFE_MEMBERS: ReadonlyMap<string, readonly string[]> = new Map([
  // Rules on the host; those of ipMasq are found by the address that the interface has.
  ['bridge', ['ipMasq', 'macspoofchk']],
  ['ptp', ['ipMasq']],
  ['loopback', []],
  // Finds its rules by container id.
  ['portmap', []],
  // Its intermediate device on the host is named after the network and the container id.
  ['bandwidth', []],
  // Sysctls die with the namespace. What else it can change is backed up in a file that only a DEL inside removes.
  ['tuning', ['mac', 'mtu', 'promisc', 'allmulti', 'txQLen', 'args', 'runtimeConfig']],
])

function isOff(plugin: CniPlugin, member: string): boolean {
  const value = plugin.json[member]
  return value === undefined || value === false
}
