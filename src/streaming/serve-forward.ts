import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { type Forward, forwardPort } from './port-forward.ts'
import type { ForwardProtocol } from './protocols.ts'
import type { SessionEnd, Sessions, Subject } from './sessions.ts'
import { SpdyConnection } from './spdy-connection.ts'
import { ForwardPairs } from './spdy-port-forward.ts'
import { WebSocketChannels } from './websocket-channels.ts'

/*
 * One port-forward session, which carries many connections, from the upgraded connection to its end.
 */

/** How long the two streams of a forwarded connection may be apart. */
const PAIR_MS = 30_000

export type PortForward = {
  readonly subject: Subject
  readonly protocol: ForwardProtocol
  readonly ports: readonly number[]
  /** A connection to the port inside of the pod. */
  connect(port: number, signal: AbortSignal): Promise<Socket>
}

/** Ends when the client leaves: it may ask for a further connection at any time. */
export async function serveSpdyForward(
  sessions: Sessions,
  { subject, connect }: PortForward,
  transport: Duplex,
  head: Buffer,
): Promise<void> {
  const running = new Set<Promise<unknown>>()
  const facts = { connections: 0, failedConnections: 0 }
  await sessions.run(
    subject,
    (events, signal) => {
      const pairs = new ForwardPairs(PAIR_MS, pair => {
        facts.connections++
        const forward = forwardPort(pair, () => connect(pair.port, signal)).then(problem => {
          if (problem !== undefined) facts.failedConnections++
          running.delete(forward)
        })
        running.add(forward)
        return forward
      })
      signal.addEventListener('abort', () => pairs.close(), { once: true })
      return new SpdyConnection(transport, head, { ...events, onStream: opening => pairs.add(opening) })
    },
    async (connection, signal) => {
      await aborted(signal)
      // Told to go, or gone: either way nothing is copied any more.
      await connection.finish()
      await Promise.all(running)
      return { facts }
    },
  )
}

/** Two channels for each announced port, connected at once; ends with the last of them. */
export function serveWebSocketForward(
  sessions: Sessions,
  { subject, protocol, ports, connect }: PortForward,
  ws: WebSocket,
  socket: Duplex,
): Promise<void> {
  return sessions.run(
    subject,
    events => new WebSocketChannels(ws, socket, { base64: protocol.base64, halfClose: false }, events),
    async (connection, signal): Promise<SessionEnd> => {
      const forwards = ports.map((port, index): Forward => {
        const forward = { port, data: connection.open(2 * index), error: connection.open(2 * index + 1) }
        for (const { output } of [forward.data, forward.error]) output.write(portBytes(port))
        return forward
      })
      const problems = await Promise.all(
        forwards.map(forward => forwardPort(forward, () => connect(forward.port, signal))),
      )
      const failure = problems.find(problem => problem !== undefined)
      return failure === undefined ? {} : { failure }
    },
  )
}

/** What each channel begins with. */
function portBytes(port: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(port)
  return bytes
}

function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (signal.aborted) resolve()
  else signal.addEventListener('abort', () => resolve(), { once: true })
  return promise
}
