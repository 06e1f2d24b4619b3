import { lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'

/** Error code of a name that leads where it must not. */
export const FORBIDDEN_ADDRESS = 'ERR_FORBIDDEN_ADDRESS'

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** This host (RFC 6890), link-local (RFC 3927, RFC 4291) and multicast. */
const NEVER = new BlockList()
NEVER.addSubnet('0.0.0.0', 8, 'ipv4')
NEVER.addSubnet('169.254.0.0', 16, 'ipv4')
NEVER.addSubnet('224.0.0.0', 4, 'ipv4')
NEVER.addAddress('255.255.255.255', 'ipv4')
NEVER.addAddress('::', 'ipv6')
NEVER.addSubnet('fe80::', 10, 'ipv6')
NEVER.addSubnet('ff00::', 8, 'ipv6')
// Metadata and host agents of clouds that are not at a link-local address.
NEVER.addAddress('100.100.100.200', 'ipv4')
NEVER.addAddress('168.63.129.16', 'ipv4')
NEVER.addAddress('fd00:ec2::254', 'ipv6')

/** Addresses that a gateway makes IPv4 ones of: RFC 6052, and RFC 8215 for networks that choose their own prefix. */
const NAT64 = new BlockList()
NAT64.addSubnet('64:ff9b::', 96, 'ipv6')
NAT64.addSubnet('64:ff9b:1::', 48, 'ipv6')

/** Host name or address of a URL, IPv6 without brackets. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '')
}

export function isLoopback(host: string): boolean {
  const family = isIP(host)
  if (family === 0) return host === 'localhost'
  return LOOPBACK.check(host, family === 6 ? 'ipv6' : 'ipv4')
}

/** The IPv4 address that a gateway of NAT64 sends what is for `host` to; any other host as it is. */
function behindGateway(host: string): string {
  if (isIP(host) !== 6 || !NAT64.check(host, 'ipv6')) return host
  // A URL writes it without dots, and with at least the last two groups unless they are zero.
  const groups = hostOf(new URL(`http://[${host}]/`))
    .split('::')
    .at(-1)!
    .split(':')
  const [high = 0, low = 0] = ['0', ...groups].slice(-2).map(group => Number.parseInt(group || '0', 16))
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join('.')
}

/**
 * What a registry must not make this node ask: cloud metadata and the node's own services give secrets to whoever
 * asks from the right place. IPv4 addresses in IPv6 ones count as themselves, those behind NAT64 too.
 *
 * @param named a name says nothing yet: see `guardedLookup`
 * @param from who named the host: what is on the node itself may lead to the node
 * @returns why not, undefined if it may be asked
 */
export function forbiddenAddress(named: string, from: string): string | undefined {
  const host = behindGateway(named)
  const family = isIP(host)
  if (family !== 0 && NEVER.check(host, family === 6 ? 'ipv6' : 'ipv4')) {
    return 'a registry must not lead to a link-local, multicast or metadata address'
  }
  if (isLoopback(host) && !isLoopback(from)) return 'a registry elsewhere must not lead to this node'
  return undefined
}

/** dns.lookup(), failing with FORBIDDEN_ADDRESS if any of the addresses must not be asked. */
export function guardedLookup(from: string): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, options, (error, found, family) => {
      if (error !== null) return callback(error, found as string, family)
      const addresses = Array.isArray(found) ? found.map(({ address }) => address) : [found]
      for (const address of addresses as string[]) {
        const why = forbiddenAddress(address, from)
        if (why === undefined) continue
        const refusal = new Error(`${hostname} is at ${address}: ${why}`)
        return callback(Object.assign(refusal, { code: FORBIDDEN_ADDRESS }), '', 0)
      }
      return callback(null, found as string, family)
    })
  }
}
