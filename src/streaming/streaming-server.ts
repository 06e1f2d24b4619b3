import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import { type AddressInfo, isIPv6, type Socket } from 'node:net'
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws'
import { BerthError, messageOf } from '../base/errors.ts'
import type {
  AttachRequest,
  ExecRequest,
  PortForwardRequest,
  StreamKind,
  StreamRequest,
} from '../model/stream-request.ts'
import type { Log } from '../observe/log.ts'
import { admit, negotiate, upgradeOf } from './admission.ts'
import type { StreamBackend } from './backend.ts'
import { answerOf, head, Refusal, refuse } from './refusal.ts'
import { type Command, serveSpdyCommand, serveWebSocketCommand } from './serve-command.ts'
import { type PortForward, serveSpdyForward, serveWebSocketForward } from './serve-forward.ts'
import { type SessionObserver, Sessions } from './sessions.ts'
import { ServerCertificate, type TlsFiles } from './tls.ts'
import { Tokens } from './tokens.ts'
import { websocketTunnel } from './websocket-tunnel.ts'

export type StreamingOptions = {
  /** An IP address. */
  readonly address: string
  /** 0 is any free one. */
  readonly port: number
  readonly tls?: TlsFiles
  /** A session without data for this long is ended; 0 never. */
  readonly idleMs: number
  /** Web pages that may connect, as their browsers name them (`https://console.example`), or `*`. */
  readonly allowedOrigins: readonly string[]
  readonly backend: StreamBackend
  readonly log: Log
  readonly observer: SessionObserver
}

/** Each is a session or about to become one: more than a node's containers use, less than its descriptors. */
const MAX_CONNECTIONS = 1000

/** Connections that have not asked for anything yet. Were they all, who has a token would find no place. */
const MAX_UNHEARD = 250

/** A client has its request ready when it connects. */
const REQUEST_MS = 10_000

const MAX_HEADER_BYTES = 16 * 1024

/** One message of a client; they send 32 KiB and a byte. */
const MAX_MESSAGE_BYTES = 4 * 2 ** 20

/** How long a WebSocket client may take to answer a close, after it was handed everything. */
const CLOSE_MS = 10_000

/** Channels of a WebSocket have one byte for their number, and a port needs two. */
const MAX_WEBSOCKET_PORTS = 127

/**
 * The HTTP server that kubelet's clients come to for exec, attach and port-forward. Every request needs a token that
 * a call of the CRI has given out; nothing else is served.
 */
export class StreamingServer {
  readonly #options: StreamingOptions
  readonly #tokens = new Tokens<StreamRequest>()
  readonly #sessions: Sessions
  readonly #server: Server | TlsServer
  readonly #sockets = new Set<Socket>()
  /** Connections without a request as yet, by their client's address, oldest first. */
  readonly #unheard = new Map<string, Socket>()
  readonly #webSockets: WebSocketServer
  /** What was agreed upon with each WebSocket client, while it is upgraded. */
  readonly #agreed = new WeakMap<IncomingMessage, string>()
  #baseUrl = ''
  #closing = false

  /** @throws BerthError invalid when the certificate cannot be used */
  constructor(options: StreamingOptions) {
    this.#options = options
    this.#sessions = new Sessions(options)
    this.#server = this.#createServer()
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#server.on('drop', () => {
      options.log.warn(
        { connections: MAX_CONNECTIONS },
        'a stream client was refused: too many are connected',
      )
    })
    this.#server.on('connection', (socket: Socket) => this.#connected(socket))
    this.#server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response)
    })
    this.#server.on('upgrade', (request: IncomingMessage, socket: Socket, rest: Buffer) => {
      this.#upgrade(request, socket, rest)
    })
    const webSockets: ServerOptions & { readonly closeTimeout: number } = {
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      // Pongs have to be gated as everything else that a client provokes.
      autoPong: false,
      maxPayload: MAX_MESSAGE_BYTES,
      closeTimeout: CLOSE_MS,
    }
    this.#webSockets = new WebSocketServer(webSockets)
    this.#webSockets.on('headers', (headers, request) => {
      const agreed = this.#agreed.get(request)
      if (agreed !== undefined) headers.push(`Sec-WebSocket-Protocol: ${agreed}`)
    })
  }

  /** @throws BerthError when the address cannot be used */
  async listen(): Promise<void> {
    const { address, port, tls, log } = this.#options
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#server.once('error', reject)
    this.#server.listen({ host: address, port }, resolve)
    try {
      await promise
    } catch (error) {
      throw new BerthError('unavailable', `the streaming server cannot listen: ${messageOf(error)}`, error)
    }
    this.#server.off('error', reject)
    this.#server.on('error', error => log.error({ error }, 'the streaming server met an error'))
    const bound = (this.#server.address() as AddressInfo).port
    this.#baseUrl = `${tls === undefined ? 'http' : 'https'}://${dialable(address)}:${bound}`
    log.info({ url: this.#baseUrl }, 'the streaming server listens')
  }

  /** Open sessions of each kind. */
  counts(): Readonly<Record<StreamKind, number>> {
    return this.#sessions.counts()
  }

  /** @returns the URL that the client has to come to, once and within a minute @throws BerthError */
  exec(request: ExecRequest): string {
    const { id, podId } = this.#options.backend.requireStreamable(request.containerId, 'exec', request.tty)
    return this.#issue({ ...request, kind: 'exec', containerId: id, podId })
  }

  attach(request: AttachRequest): string {
    const { id, podId } = this.#options.backend.requireStreamable(request.containerId, 'attach', request.tty)
    return this.#issue({ ...request, kind: 'attach', containerId: id, podId })
  }

  portForward(request: PortForwardRequest): string {
    const { id } = this.#options.backend.requireReadyPod(request.podId)
    return this.#issue({ ...request, kind: 'portforward', podId: id })
  }

  /** Ends all sessions, telling their clients why. */
  async close(): Promise<void> {
    this.#closing = true
    this.#server.close()
    await this.#sessions.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #issue(request: StreamRequest): string {
    return `${this.#baseUrl}/${request.kind}/${this.#tokens.issue(request)}`
  }

  /** Who connects and says nothing makes way for who comes later: a client's request comes with its connection. */
  #connected(socket: Socket): void {
    const client = addressOf(socket)
    this.#sockets.add(socket)
    this.#unheard.set(client, socket)
    socket.once('close', () => {
      this.#sockets.delete(socket)
      this.#unheard.delete(client)
    })
    const [oldest] = this.#unheard.values()
    if (this.#unheard.size > MAX_UNHEARD) oldest?.destroy()
  }

  #createServer(): Server | TlsServer {
    const { tls, log } = this.#options
    const http = {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      // How often Node.js looks for those that are late; by default it does so every 30 s.
      connectionsCheckingInterval: REQUEST_MS / 4,
    }
    if (tls === undefined) return createServer(http)
    const certificate = new ServerCertificate(tls, log)
    const clients = tls.ca === '' ? {} : { requestCert: true, rejectUnauthorized: true }
    const server = createTlsServer({
      ...http,
      ...certificate.options,
      ...clients,
      handshakeTimeout: REQUEST_MS,
    })
    server.prependListener('connection', () => certificate.refresh(server))
    return server
  }

  /** A request without an upgrade: refused in every case. */
  #answer(request: IncomingMessage, response: ServerResponse): void {
    const refusal = refusalOf(() => {
      this.#redeem(request)
      upgradeOf(request)
    })
    this.#logRefusal(request, refusal)
    const { body, fields } = answerOf(refusal)
    response.writeHead(refusal.status, fields).end(body)
  }

  #upgrade(request: IncomingMessage, socket: Socket, rest: Buffer): void {
    socket.on('error', () => undefined)
    this.#unheard.delete(addressOf(socket))
    try {
      const asked = this.#redeem(request)
      socket.setNoDelay(true)
      // A client whose machine is gone says nothing any more.
      socket.setKeepAlive(true, 60_000)
      if (asked.kind === 'portforward') this.#forward(asked, request, socket, rest)
      else this.#command(asked, request, socket, rest)
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal(400, messageOf(error))
      this.#logRefusal(request, refusal)
      refuse(socket, refusal)
    }
  }

  #redeem(request: IncomingMessage): StreamRequest {
    const { kind, token } = admit(request, this.#options.allowedOrigins)
    // One that was connected already when the server was closed.
    const asked = this.#closing ? undefined : this.#tokens.redeem(token)
    if (asked?.kind !== kind) throw new Refusal(404, 'not found')
    return asked
  }

  #command(
    asked: StreamRequest & { kind: 'exec' | 'attach' },
    request: IncomingMessage,
    socket: Socket,
    rest: Buffer,
  ): void {
    const upgrade = upgradeOf(request)
    const protocol = negotiate(request, upgrade, 'command')
    const { backend } = this.#options
    const { kind, podId, containerId, tty } = asked
    const command: Command = {
      subject: { kind, podId, containerId, ...agreement(socket, protocol.name) },
      wanted: asked,
      protocol,
      run: async (channels, signal) => {
        backend.requireStreamable(containerId, kind, tty)
        if (kind === 'exec') return await backend.exec(containerId, asked.command, tty, channels, signal)
        await backend.attach(containerId, tty, channels, signal)
        return undefined
      },
    }
    if (upgrade === 'spdy') {
      acceptSpdy(socket, protocol.name)
      void serveSpdyCommand(this.#sessions, command, socket, rest)
    } else {
      this.#acceptWebSocket(request, socket, rest, protocol.name, ws => {
        void serveWebSocketCommand(this.#sessions, command, ws, socket)
      })
    }
  }

  #forward(
    asked: StreamRequest & { kind: 'portforward' },
    request: IncomingMessage,
    socket: Socket,
    rest: Buffer,
  ): void {
    const protocol = negotiate(request, upgradeOf(request), 'forward')
    const { podId, ports } = asked
    if (protocol.transport === 'channels' && (ports.length === 0 || ports.length > MAX_WEBSOCKET_PORTS)) {
      throw new Refusal(400, `${protocol.name} needs the ports beforehand, from 1 to ${MAX_WEBSOCKET_PORTS}`)
    }
    const forward: PortForward = {
      subject: { kind: 'portforward', podId, ...agreement(socket, protocol.name) },
      protocol,
      ports,
      connect: (port, signal) => this.#options.backend.connect(podId, port, signal),
    }
    if (protocol.transport === 'spdy') {
      acceptSpdy(socket, protocol.name)
      void serveSpdyForward(this.#sessions, forward, socket, rest)
      return
    }
    this.#acceptWebSocket(request, socket, rest, protocol.name, ws => {
      if (protocol.transport === 'channels') void serveWebSocketForward(this.#sessions, forward, ws, socket)
      else void serveSpdyForward(this.#sessions, forward, websocketTunnel(ws, socket), Buffer.alloc(0))
    })
  }

  #acceptWebSocket(
    request: IncomingMessage,
    socket: Socket,
    rest: Buffer,
    protocol: string,
    accepted: (ws: WebSocket) => void,
  ): void {
    // Negotiated already; and the library takes no names with a slash, such as that of the tunnel.
    if (request.headers['sec-websocket-protocol'] !== undefined) this.#agreed.set(request, protocol)
    delete request.headers['sec-websocket-protocol']
    this.#webSockets.handleUpgrade(request, socket, rest, accepted)
  }

  /** Without the token: the log is read by more people than may use it. */
  #logRefusal(request: IncomingMessage, { status, message }: Refusal): void {
    const kind = /^\/(exec|attach|portforward)\//.exec(request.url ?? '')?.[1]
    const client = addressOf(request.socket)
    this.#options.log.warn({ client, kind, status, error: message }, 'a stream request was refused')
  }
}

function refusalOf(check: () => void): Refusal {
  try {
    check()
  } catch (error) {
    if (error instanceof Refusal) return error
  }
  return new Refusal(400, 'expected an upgrade')
}

function acceptSpdy(socket: Socket, protocol: string): void {
  const fields = { Connection: 'Upgrade', Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': protocol }
  socket.write(head(101, fields))
}

function agreement(socket: Socket, protocol: string): { readonly client: string; readonly protocol: string } {
  return { client: addressOf(socket), protocol }
}

function addressOf({ remoteAddress = '', remotePort = 0 }: Socket): string {
  return `${isIPv6(remoteAddress) ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`
}

/** kubelet runs on this node, so where any address will do it takes the node's own. */
function dialable(address: string): string {
  if (address === '0.0.0.0') return '127.0.0.1'
  if (address === '::') return '[::1]'
  return isIPv6(address) ? `[${address}]` : address
}
