import type { Socket } from 'node:net'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { sleep } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { type AdminBackend, adminService } from './admin-service.ts'
import { type CallLog, type CallObserver, Calls } from './call.ts'
import { ClientLimits, type ClientLimitsOptions, MAX_MESSAGE } from './client-limits.ts'
import { type ImageAdminBackend, imageAdminService } from './image-admin-service.ts'
import { imageService } from './image-service.ts'
import { type Peer, PeerGuard, type PeerRules, peerName } from './peers.ts'
import { loadServices } from './proto.ts'
import { runtimeService } from './runtime-service.ts'
import type { CriServices } from './services.ts'
import { UnixListener } from './socket.ts'

export type CriServerOptions = {
  readonly services: CriServices
  readonly admin: AdminBackend
  readonly imageAdmin: ImageAdminBackend
  readonly log: CallLog
  readonly metrics: CallObserver
  /** Directory with the interface definitions. */
  readonly protoDir: string
  readonly socketPath: string
  readonly socketMode: number
  /** Group of the socket. */
  readonly socketGid?: number
  readonly allowedPeers: PeerRules
  /** Of a connected socket's descriptor. */
  readonly peerOf: (fd: number) => Peer
  /** Others than those of the product. */
  readonly limits?: Partial<ClientLimitsOptions>
}

/**
 * When a silent connection is asked whether its client is still there, and how long the answer may take. A process that
 * is stopped, or that never spoke HTTP/2, loses its connection after both; a busy node is not that slow.
 */
const KEEPALIVE_MS = 60_000
const KEEPALIVE_ANSWER_MS = 60_000

/** `runtime.v1` and the admin interface on one unix socket. Answers UNAVAILABLE until `open`. */
export class CriServer {
  readonly #calls: Calls
  readonly #limits: ClientLimits
  readonly #grpc: Server
  readonly #options: CriServerOptions
  readonly #guard: PeerGuard
  /** The last one is that at the path; those before it lost theirs, but not their connections. */
  readonly #listeners: UnixListener[] = []
  #isClosed = false

  constructor(options: CriServerOptions) {
    const { services, admin, imageAdmin, log, metrics, protoDir } = options
    const definitions = loadServices(protoDir)
    this.#options = options
    this.#guard = new PeerGuard(options.allowedPeers, log)
    this.#calls = new Calls(log, metrics)
    this.#limits = new ClientLimits(log, options.limits)
    this.#grpc = new Server({
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.max_send_message_length': MAX_MESSAGE,
      'grpc.max_concurrent_streams': this.#limits.maxStreams,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_ANSWER_MS,
      interceptors: [this.#limits.interceptor],
    })
    this.#grpc.addService(definitions.runtime, runtimeService(this.#calls, services))
    this.#grpc.addService(definitions.image, imageService(this.#calls, services.images, services.node))
    this.#grpc.addService(definitions.admin, adminService(this.#calls, admin, services.images))
    this.#grpc.addService(definitions.imageAdmin, imageAdminService(this.#calls, imageAdmin))
  }

  /** @throws BerthError when the socket cannot be made */
  async listen(): Promise<void> {
    const { socketPath, socketMode, socketGid } = this.#options
    const injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure())
    const listener = await UnixListener.listen(
      { path: socketPath, mode: socketMode, ...(socketGid === undefined ? {} : { gid: socketGid }) },
      socket => {
        const peer = this.#peerOf(socket)
        if (peer === undefined || !this.#guard.admits(peer) || !this.#limits.admit(socket, peer.pid)) {
          socket.destroy()
          return
        }
        // A unix socket has no address of its peer: what calls show as theirs (`getPeer`) is the process.
        Object.defineProperty(socket, 'remoteAddress', { value: peerName(peer) })
        injector.injectConnection(socket)
      },
    )
    this.#listeners.push(listener)
    if (this.#isClosed) void listener.close()
  }

  /** Where somebody has removed the socket, a new one is made; connections there are go on. */
  keepReachable(): void {
    if (this.#isClosed || this.#listeners.at(-1)?.isReachable() !== false) return
    const { log, socketPath } = this.#options
    log.warn({ socket: socketPath }, 'the socket was removed: another one is made')
    this.listen().catch(error => log.warn({ error: messageOf(error) }, 'the socket could not be made again'))
  }

  /** The state is recovered: calls are served from now on. */
  open(): void {
    this.#calls.open()
  }

  /** For tests: what clients cost now. */
  get limits(): ClientLimits {
    return this.#limits
  }

  /** Ends streams, gives calls at work `graceMs` to finish, then cuts what is left. */
  async close(graceMs: number): Promise<void> {
    this.#calls.close()
    // The library's own callback comes too early with Node 24, where closing an HTTP/2 server marks its sessions as
    // closed at once: the end of the connections tells.
    this.#isClosed = true
    const ended = Promise.all(this.#listeners.map(listener => listener.close()))
    this.#grpc.tryShutdown(() => undefined)
    const timer = new AbortController()
    await Promise.race([ended, sleep(graceMs, timer.signal).catch(() => undefined)])
    timer.abort()
    this.#grpc.forceShutdown()
    this.#limits.close()
  }

  #peerOf(socket: Socket): Peer | undefined {
    const fd = (socket as unknown as { _handle: { fd: number } | null })._handle?.fd
    return fd === undefined || fd < 0 ? undefined : this.#options.peerOf(fd)
  }
}
