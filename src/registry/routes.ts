import type { WatchedFiles } from '../os/watched-files.ts'
import type { Endpoint } from './endpoint.ts'
import { HostsDirs } from './hosts-dirs.ts'
import type { HostRule, HostsFile } from './hosts-file.ts'
import { DEFAULT_DOMAIN, type Reference } from './reference.ts'
import { type Registries, type RegistriesOptions, watchRegistries } from './registries.ts'

export type RoutesOptions = RegistriesOptions & {
  /** Directories of hosts, the most important first; they need not exist. */
  readonly hostsDirs: readonly string[]
}

/** The endpoints of a reference, and which file decided. */
export type Route = {
  /** In the order in which they are asked. */
  readonly endpoints: readonly Endpoint[]
  /** A sentence with `file:line`. */
  readonly decision: string
  /** What does not count although it is configured: sentences with `file:line`. */
  readonly notes: readonly string[]
}

/** Docker Hub's name is not the address of its registry. */
const DOCKER_HUB_ADDRESS = 'registry-1.docker.io'

/**
 * Where references lead. A `[[registry]]` table of registries.conf decides for what its prefix covers; for everything
 * else the hosts.toml of the registry's host does; without one the registry itself is asked.
 */
export class Routes {
  readonly #registries: WatchedFiles<Registries>
  readonly #hosts: HostsDirs

  constructor(options: RoutesOptions) {
    this.#registries = watchRegistries(options)
    this.#hosts = new HostsDirs(options.hostsDirs)
  }

  /** @throws BerthError unknown for a registries.conf that cannot be understood */
  registries(): Registries {
    return this.#registries.current()
  }

  /** @throws BerthError unknown for files that cannot be understood, or that block the registry */
  find(reference: Reference): Route {
    const registries = this.registries()
    const rule = registries.ruleFor(reference)
    const hosts = this.#hosts.find(reference.domain)
    if (rule !== undefined) {
      const overruled = hosts === undefined ? [] : [`${hosts.file} is not used: registries.conf goes before`]
      return {
        endpoints: registries.endpoints(reference),
        decision: `${rule.origin}: [[registry]] with prefix ${JSON.stringify(rule.prefix)}`,
        notes: [...registries.leftOut(reference), ...overruled],
      }
    }
    const itself = registries.itself(reference)
    if (hosts !== undefined) {
      return { endpoints: endpointsOf(hosts, itself, reference), decision: hosts.file, notes: [] }
    }
    return { endpoints: [itself], decision: 'no file says anything about this registry', notes: [] }
  }
}

function endpointsOf(hosts: HostsFile, itself: Endpoint, { domain }: Reference): Endpoint[] {
  const mirrors = hosts.hosts.map(rule => endpointOf(rule, itself, domain, true))
  return [...mirrors, endpointOf(hosts.server, itself, domain, false)]
}

function endpointOf(rule: HostRule, itself: Endpoint, domain: string, mirror: boolean): Endpoint {
  const { resolves, pulls, headers, tls, connectTimeoutMs, origin } = rule
  const common = { ...itself, mirror, resolves, pulls, headers, tls, connectTimeoutMs, origin }
  if (rule.address === undefined) {
    // `skip_verify = false` takes back what the node's configuration allows.
    const insecure = rule.skipVerify ?? itself.insecure
    return { ...common, insecure, schemes: insecure === itself.insecure ? itself.schemes : ['https:'] }
  }
  const { scheme, host, root } = rule.address
  const upstream = host === DOCKER_HUB_ADDRESS ? DEFAULT_DOMAIN : host
  return {
    ...common,
    host: upstream,
    root,
    schemes: [scheme],
    insecure: scheme === 'http:' || rule.skipVerify === true,
    namespace: upstream === domain ? undefined : domain,
  }
}
