import { messageOf } from '../base/errors.ts'
import type { CredentialSource } from './auth-files.ts'
import type { RegistryOptions } from './client.ts'
import { programOf } from './credential-helper.ts'
import type { Endpoint } from './endpoint.ts'
import { NodeCredentials } from './node-credentials.ts'
import { readText } from './read-text.ts'
import type { Reference } from './reference.ts'
import { Routes } from './routes.ts'
import { publicUrl } from './transport/failure.ts'
import { proxyFor } from './transport/proxy.ts'
import { endpointUrl } from './transport/session.ts'
import { TlsContexts } from './transport/tls.ts'

/** Where an endpoint is and how it is asked, in words, and never with a secret. */
export type ExplainedEndpoint = {
  /** The second where nobody speaks the first's protocol. */
  readonly urls: readonly string[]
  readonly kind: 'mirror' | 'registry'
  /** `file:line`, or a sentence. */
  readonly origin: string
  /** What it is not asked for. */
  readonly limits: readonly string[]
  readonly tls: string
  /** Files with further authorities and client certificates. */
  readonly certificates: readonly string[]
  /** Names of the headers that hosts.toml adds. */
  readonly headers: readonly string[]
  readonly proxy: string | undefined
  /** In the order in which they count; none is an anonymous pull. */
  readonly credentials: readonly string[]
}

export type ExplainedReference = {
  readonly reference: string
  /** Why the name means this. */
  readonly origin: string
  readonly decision: string
  readonly notes: readonly string[]
  readonly endpoints: readonly ExplainedEndpoint[]
  /** Why nothing is asked: the registry is blocked, or a file cannot be understood. */
  readonly problem: string | undefined
}

/**
 * What a pull of this name would ask, in order, and what says so. Nothing is asked, no helper is run, no file is
 * changed.
 *
 * @throws BerthError invalid for what is no name; unknown for a registries.conf that cannot be understood
 */
export function explain(options: RegistryOptions, name: string, namespace: string): ExplainedReference[] {
  const routes = new Routes({
    file: options.registriesConf,
    directory: options.registriesConfDir,
    insecure: options.insecureRegistries ?? [],
    hostsDirs: options.certDirs,
  })
  const credentials = new NodeCredentials({
    authFiles: options.authFiles,
    namespacedAuthDir: options.namespacedAuthDir ?? '',
    helperEnv: options.helperEnv ?? {},
  })
  const parts = { options, routes, credentials, namespace, tls: new TlsContexts(options.certDirs) }
  return routes
    .registries()
    .meanings(name)
    .map(({ reference, origin }) => {
      const common = { reference: `${reference}`, origin }
      try {
        return { ...common, ...explainReference(parts, reference), problem: undefined }
      } catch (error) {
        return { ...common, decision: '', notes: [], endpoints: [], problem: messageOf(error) }
      }
    })
}

type Parts = {
  readonly options: RegistryOptions
  readonly routes: Routes
  readonly credentials: NodeCredentials
  readonly namespace: string
  readonly tls: TlsContexts
}

function explainReference(
  parts: Parts,
  reference: Reference,
): Pick<ExplainedReference, 'decision' | 'notes' | 'endpoints'> {
  const { decision, notes, endpoints } = parts.routes.find(reference)
  return {
    decision,
    notes,
    endpoints: endpoints.map(endpoint => explainEndpoint(parts, reference, endpoint)),
  }
}

function explainEndpoint(parts: Parts, reference: Reference, endpoint: Endpoint): ExplainedEndpoint {
  const urls = endpoint.schemes.map(scheme => endpointUrl(endpoint, scheme))
  const [url] = urls
  const { ca, client } = endpoint.tls
  const files = endpoint.schemes.includes('https:') ? parts.tls.filesFor(url!) : []
  const proxy = parts.options.proxy && proxyFor(url!, parts.options.proxy)
  return {
    urls: urls.map(publicUrl),
    kind: endpoint.mirror ? 'mirror' : 'registry',
    origin: endpoint.origin,
    limits: limitsOf(endpoint, reference),
    tls: tlsOf(endpoint),
    certificates: [...files, ...ca, ...new Set(client.flatMap(({ cert, key }) => [cert, key]))],
    headers: Object.keys(endpoint.headers),
    proxy: proxy && publicUrl(new URL(proxy)).replace(/\/$/, ''),
    credentials: credentialsOf(parts, reference, endpoint).map(shownSource),
  }
}

function limitsOf({ resolves, pulls }: Endpoint, { digest }: Reference): string[] {
  const limits: string[] = []
  if (!resolves && digest === undefined) limits.push('is not asked what the tag stands for')
  if (!pulls) limits.push('is not asked for content')
  return limits
}

function tlsOf({ schemes, insecure }: Endpoint): string {
  if (schemes.length === 1 && schemes[0] === 'http:') return 'none: plain http'
  if (!insecure) return 'certificate is verified'
  return schemes.includes('http:')
    ? 'certificate is not verified; plain http if nobody speaks TLS'
    : 'certificate is not verified'
}

function credentialsOf(
  { routes, credentials, namespace }: Parts,
  reference: Reference,
  endpoint: Endpoint,
): readonly CredentialSource[] {
  const file = credentials.namespaceFile(reference, namespace)
  const source = file === undefined ? undefined : readText(file)
  const own = file === undefined || source === undefined ? undefined : { file, source }
  return credentials.sources(endpoint, routes.registries(), own)
}

function shownSource(source: CredentialSource): string {
  return 'credentials' in source
    ? `${source.origin} (${source.credentials.kind})`
    : `${source.origin}: ${programOf(source.helper)} is asked`
}
