import type { IncomingMessage } from 'node:http'
import type { StreamKind } from '../model/stream-request.ts'
import { COMMAND_PROTOCOLS, choose, FORWARD_PROTOCOLS, offersIn, UNNAMED } from './protocols.ts'
import { Refusal } from './refusal.ts'

/*
 * What a request has to be before anything is upgraded. Each check throws a Refusal.
 */

const PATH = /^\/(exec|attach|portforward)\/([A-Za-z0-9_-]{22})$/

/** A name, an IPv4 address or an IPv6 one in brackets, perhaps with a port. */
const HOST = /^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,64}\])(:[0-9]{1,5})?$/

/** @returns the kind and the token in the path; parameters behind it mean nothing, all of them are with the token */
export function admit(
  request: Pick<IncomingMessage, 'method' | 'url' | 'headersDistinct'>,
  allowedOrigins: readonly string[],
): { readonly kind: StreamKind; readonly token: string } {
  const { method, url = '', headersDistinct: headers } = request
  // kubelet hands on the Host that its own client has sent, so only its form can be checked.
  if (headers.host?.length !== 1 || !HOST.test(headers.host[0]!)) {
    throw new Refusal(400, 'expected one Host header of the form host[:port]')
  }
  const origin = headers.origin?.join(', ')
  if (origin !== undefined && !allowedOrigins.includes('*') && !allowedOrigins.includes(origin)) {
    throw new Refusal(
      403,
      'requests of web pages (with an Origin header) are refused; see stream_allowed_origins',
    )
  }
  const [, kind, token] = PATH.exec(url.replace(/\?.*$/s, '')) ?? []
  if (kind === undefined || token === undefined) throw new Refusal(404, 'not found')
  if (method !== 'GET' && method !== 'POST')
    throw new Refusal(405, 'expected GET or POST', { Allow: 'GET, POST' })
  return { kind: kind as StreamKind, token }
}

export type Upgrade = 'spdy' | 'websocket'

export function upgradeOf({ headersDistinct: headers }: Pick<IncomingMessage, 'headersDistinct'>): Upgrade {
  const upgrades = offersIn(headers.upgrade ?? []).map(name => name.toLowerCase())
  const connection = offersIn(headers.connection ?? []).map(name => name.toLowerCase())
  if (connection.includes('upgrade')) {
    if (upgrades.includes('websocket')) return 'websocket'
    if (upgrades.includes('spdy/3.1')) return 'spdy'
  }
  throw new Refusal(400, 'expected an upgrade to SPDY/3.1 or WebSocket')
}

/** A protocol for the kind of session, out of what the client offers in the header of its upgrade. */
export function negotiate<K extends 'command' | 'forward'>(
  { headersDistinct: headers }: Pick<IncomingMessage, 'headersDistinct'>,
  upgrade: Upgrade,
  kind: K,
): (typeof PROTOCOLS)[K][Upgrade][number] {
  const served: ReadonlyArray<(typeof PROTOCOLS)[K][Upgrade][number]> = PROTOCOLS[kind][upgrade]
  const names = served.map(({ name }) => name).join(', ')
  const header = upgrade === 'spdy' ? 'x-stream-protocol-version' : 'sec-websocket-protocol'
  const offers = offersIn(headers[header] ?? [])
  if (offers.length === 0 && upgrade === 'spdy') {
    throw new Refusal(400, `expected an X-Stream-Protocol-Version header with one of ${names}`)
  }
  const found = choose(offers.length === 0 ? [UNNAMED[kind]] : offers, served)
  if (found === undefined) {
    const accepted = upgrade === 'spdy' ? { 'X-Accepted-Stream-Protocol-Versions': names } : {}
    throw new Refusal(403, `none of the protocols ${offers.join(', ')} is served, but ${names}`, accepted)
  }
  return found
}

const PROTOCOLS = { command: COMMAND_PROTOCOLS, forward: FORWARD_PROTOCOLS }
