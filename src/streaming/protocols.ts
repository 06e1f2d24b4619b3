/*
 * The sub-protocols and how one is chosen: the first that the client offers and we know.
 */

/** How an exec or attach is spoken. */
export type CommandProtocol = {
  readonly name: string
  readonly transport: 'spdy' | 'websocket'
  /** The error stream carries a `Status` as JSON; before, the text of a failure. */
  readonly jsonStatus: boolean
  /** Terminal sizes come on a stream of their own. */
  readonly resize: boolean
  /** WebSocket: text messages of a digit and base64, not a byte and bytes. */
  readonly base64: boolean
  /** WebSocket: the client can end one channel. */
  readonly halfClose: boolean
  /**
   * The first version's habits, which its clients are built on: stdin has no way back and the error stream is reset
   * at the beginning, so that failures are not told.
   */
  readonly firstVersion: boolean
}

function protocol(
  transport: CommandProtocol['transport'],
  name: string,
  more: Partial<CommandProtocol> = {},
) {
  const rest = { jsonStatus: false, resize: false, base64: false, halfClose: false, firstVersion: false }
  return { transport, name, ...rest, ...more }
}

const SPDY_COMMAND: readonly CommandProtocol[] = [
  protocol('spdy', 'v4.channel.k8s.io', { jsonStatus: true, resize: true }),
  protocol('spdy', 'v3.channel.k8s.io', { resize: true }),
  protocol('spdy', 'v2.channel.k8s.io'),
  protocol('spdy', 'channel.k8s.io', { firstVersion: true }),
]

const WEBSOCKET_COMMAND: readonly CommandProtocol[] = [
  protocol('websocket', 'v5.channel.k8s.io', { jsonStatus: true, resize: true, halfClose: true }),
  protocol('websocket', 'v4.channel.k8s.io', { jsonStatus: true, resize: true }),
  protocol('websocket', 'v4.base64.channel.k8s.io', { jsonStatus: true, resize: true, base64: true }),
  protocol('websocket', 'channel.k8s.io', { resize: true }),
  protocol('websocket', 'base64.channel.k8s.io', { resize: true, base64: true }),
]

/** How a port-forward is spoken. */
export type ForwardProtocol = {
  readonly name: string
  /** `tunnel` is SPDY in the messages of a WebSocket, `channels` two WebSocket channels for each announced port. */
  readonly transport: 'spdy' | 'tunnel' | 'channels'
  readonly base64: boolean
}

const SPDY_FORWARD: readonly ForwardProtocol[] = [
  { name: 'portforward.k8s.io', transport: 'spdy', base64: false },
]

const WEBSOCKET_FORWARD: readonly ForwardProtocol[] = [
  { name: 'SPDY/3.1+portforward.k8s.io', transport: 'tunnel', base64: false },
  { name: 'v4.channel.k8s.io', transport: 'channels', base64: false },
  { name: 'v4.base64.channel.k8s.io', transport: 'channels', base64: true },
  { name: 'channel.k8s.io', transport: 'channels', base64: false },
  { name: 'base64.channel.k8s.io', transport: 'channels', base64: true },
]

/** What is served over which upgrade, best first. */
export const COMMAND_PROTOCOLS = { spdy: SPDY_COMMAND, websocket: WEBSOCKET_COMMAND }
export const FORWARD_PROTOCOLS = { spdy: SPDY_FORWARD, websocket: WEBSOCKET_FORWARD }

/** A WebSocket client that offers nothing means the first binary version. */
export const UNNAMED = { command: 'channel.k8s.io', forward: 'v4.channel.k8s.io' } as const

/** The first offer that is served. */
export function choose<P extends { readonly name: string }>(
  offers: readonly string[],
  served: readonly P[],
): P | undefined {
  for (const offer of offers) {
    const found = served.find(({ name }) => name === offer)
    if (found !== undefined) return found
  }
  return undefined
}

/** `a, b` and repeated headers, in order, without empty ones. */
export function offersIn(values: readonly string[]): string[] {
  return values.flatMap(value => value.split(',').map(offer => offer.trim())).filter(offer => offer !== '')
}
