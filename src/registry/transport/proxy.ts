import { BlockList, isIP } from 'node:net'

/** The proxy variables' values, '' where unset. A URL may hold user and password. */
export type ProxySettings = {
  /** For http registries. */
  readonly http: string
  /** For https registries. */
  readonly https: string
  /** Hosts, domains, addresses and address ranges to reach directly, separated by commas. */
  readonly noProxy: string
}

/** The proxy for a URL, undefined for a direct connection. Loopback is always direct. */
export function proxyFor(url: URL, settings: ProxySettings): string | undefined {
  const proxy = url.protocol === 'https:' ? settings.https : settings.http
  if (proxy === '' || isDirect(url, settings.noProxy)) return undefined
  return proxy.includes('://') ? proxy : `http://${proxy}`
}

function isDirect(url: URL, noProxy: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  if (host === 'localhost' || isInRange(host, '127.0.0.0/8') || isInRange(host, '::1/128')) return true
  return noProxy.split(',').some(entry => matches(entry.trim().toLowerCase(), host, port))
}

/** `*`, an address, a range, `domain` (with what is below it) or `.domain` (only that); each but ranges with a port. */
function matches(entry: string, host: string, port: string): boolean {
  if (entry === '') return false
  if (entry === '*') return true
  if (entry.includes('/')) return isInRange(host, entry)
  const [, name = entry, only = port] = /^(\[.*\]|[^:]*):(\d+)$/.exec(entry) ?? []
  if (only !== port) return false
  const plain = name.replace(/^\[|\]$/g, '').replace(/^\*\./, '.')
  if (plain.startsWith('.')) return host.endsWith(plain)
  return host === plain || (isIP(host) === 0 && host.endsWith(`.${plain}`))
}

function isInRange(host: string, range: string): boolean {
  const [network = '', prefix = ''] = range.split('/')
  const family = isIP(host)
  if (family === 0 || isIP(network) !== family || !/^\d{1,3}$/.test(prefix)) return false
  if (Number(prefix) > (family === 6 ? 128 : 32)) return false
  const list = new BlockList()
  const type = family === 6 ? 'ipv6' : 'ipv4'
  list.addSubnet(network, Number(prefix), type)
  return list.check(host, type)
}
