import { BerthError, errnoOf } from '../../base/errors.ts'
import { FORBIDDEN_ADDRESS } from './addresses.ts'

/**
 * Why one endpoint didn't give what it was asked for:
 * `unavailable` no answer, a broken one, or one that says "later" (408, 429, 5xx): worth another try;
 * `not-found` 404; `denied` 401 or 403 with the best credentials there are;
 * `refused` another answer that will not change; `content` an answer that must not be used.
 */
export type FailureKind = 'unavailable' | 'not-found' | 'denied' | 'refused' | 'content'

/** Stays within this folder's callers: what leaves registry/ is one BerthError about all endpoints. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly kind: FailureKind
  /** Milliseconds the server asked to wait. */
  readonly retryAfterMs: number | undefined
  /** The origin to which no connection came about, if that is what failed: nothing was sent. */
  readonly unreached: string | undefined

  constructor(
    kind: FailureKind,
    message: string,
    more: {
      readonly cause?: unknown
      readonly retryAfterMs?: number | undefined
      readonly unreached?: string | undefined
    } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.kind = kind
    this.retryAfterMs = more.retryAfterMs
    this.unreached = more.unreached
  }
}

/** The address without user, query and fragment, which may hold secrets. */
export function publicUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`
}

const MAX_FOREIGN_TEXT = 300

/** Text that a server chose, on one line and of bounded length. */
export function foreignText(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim()
  return line.length > MAX_FOREIGN_TEXT ? `${line.slice(0, MAX_FOREIGN_TEXT)}…` : line
}

/** Codes of errors that happen before a request is on its way. */
const CONNECT_CODES = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_PRX_CONN',
])

// Verification results of OpenSSL, and Node's own check of the name.
const CERTIFICATE_CODES =
  /^(?:CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|ERR_TLS_CERT)/

/** What undici threw while talking to `url`. */
export function transportFailure(url: URL, error: unknown): Failure {
  if (error instanceof Failure) return error
  const where = publicUrl(url)
  const code = codeOf(error)
  if (CERTIFICATE_CODES.test(code)) {
    return new Failure('refused', `${where}: the certificate cannot be trusted: ${reasonOf(error)}`, {
      cause: error,
    })
  }
  if (code === FORBIDDEN_ADDRESS)
    return new Failure('refused', `${where}: ${reasonOf(error)}`, { cause: error })
  const isTls = code.startsWith('ERR_SSL_') || code === 'EPROTO' || /before secure TLS/.test(reasonOf(error))
  const unreached = isTls || CONNECT_CODES.has(code) ? url.origin : undefined
  return new Failure('unavailable', `${where}: ${reasonOf(error)}`, { cause: error, unreached })
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code
  if (typeof code === 'string') return code
  const cause = error instanceof Error ? error.cause : undefined
  return cause === undefined ? '' : codeOf(cause)
}

/** Timeouts say what they waited for; the errors of several addresses are given one by one. */
function reasonOf(error: unknown): string {
  switch (codeOf(error)) {
    case 'UND_ERR_CONNECT_TIMEOUT':
      return 'no connection within the connect timeout'
    case 'UND_ERR_HEADERS_TIMEOUT':
      return 'connected, but no answer within the progress timeout'
    case 'UND_ERR_BODY_TIMEOUT':
      return 'no further bytes within the progress timeout'
  }
  if (error instanceof AggregateError && error.errors.length > 0) {
    return [...new Set(error.errors.map(reasonOf))].join(', ')
  }
  if (!(error instanceof Error)) return foreignText(String(error))
  return foreignText(error.message || errnoOf(error) || error.name)
}

/** What a caller is told when every endpoint failed. `what` is the reference, with the layer if it is about one. */
export function allFailed(what: string, failures: readonly Failure[]): BerthError {
  const causes = [...new Set(failures.map(failure => failure.message))].join('; ')
  const cause = failures.at(-1)
  // kubelet knows this word at the beginning and backs off for the whole registry.
  if (failures.every(failure => failure.kind === 'unavailable')) {
    return new BerthError('unknown', `RegistryUnavailable: ${what}: ${causes}`, cause)
  }
  // The last endpoint is the registry itself; mirrors need not have everything.
  if (cause?.kind === 'not-found') return new BerthError('not-found', `${what}: not found: ${causes}`, cause)
  if (cause?.kind === 'denied') {
    const hint = 'the image may not exist, or needs credentials that were not given or not accepted'
    return new BerthError('unknown', `${what}: access denied: ${causes} (${hint})`, cause)
  }
  return new BerthError('unknown', `${what}: ${causes}`, cause)
}
