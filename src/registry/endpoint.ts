/** `https:` and `http:` as URLs have them. */
export type Scheme = 'https:' | 'http:'

/** Certificates of one endpoint beside those that its host has in the directories of certificates. */
export type EndpointTls = {
  /** Files with further authorities, PEM. */
  readonly ca: readonly string[]
  /** Files with client certificates and their keys, which may be the same file. */
  readonly client: ReadonlyArray<{ readonly cert: string; readonly key: string }>
}

/** One place to ask for a repository. */
export type Endpoint = {
  /** `host[:port]` as configured: what credentials and certificates are filed under. */
  readonly host: string
  /** The repository's path on that host. */
  readonly repository: string
  /** Tried in order; the second only where nobody speaks the first. */
  readonly schemes: readonly Scheme[]
  /** Path below which the API is: `/v2` unless hosts.toml says otherwise. */
  readonly root: string
  /** Certificates are not verified, and the token server may be plain http. */
  readonly insecure: boolean
  /** Not the registry itself: it gets no credentials that name no host. */
  readonly mirror: boolean
  /** It may be asked what a tag stands for. */
  readonly resolves: boolean
  /** It may be asked for content. */
  readonly pulls: boolean
  /** The registry that it stands for, sent as `ns`, as containerd does. */
  readonly namespace: string | undefined
  /** Sent with every request to it, and to nobody else: they may be secrets. */
  readonly headers: Readonly<Record<string, string>>
  readonly tls: EndpointTls
  /** undefined: the client's default. */
  readonly connectTimeoutMs: number | undefined
  /** What says so: `file:line`, or a sentence. */
  readonly origin: string
}

export const NO_TLS_FILES: EndpointTls = { ca: [], client: [] }

const SECURE: readonly Scheme[] = ['https:']
const ANY: readonly Scheme[] = ['https:', 'http:']

type Plain = Pick<Endpoint, 'host' | 'repository' | 'insecure' | 'mirror' | 'origin'>

/** An endpoint with nothing special: https, or whatever is spoken there if it may be insecure. */
export function plainEndpoint(fields: Plain): Endpoint {
  return {
    ...fields,
    schemes: fields.insecure ? ANY : SECURE,
    root: '/v2',
    resolves: true,
    pulls: true,
    namespace: undefined,
    headers: {},
    tls: NO_TLS_FILES,
    connectTimeoutMs: undefined,
  }
}
