import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { constants, type Http2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import {
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServerMethodDefinition,
  status,
} from '@grpc/grpc-js'
import { collectChunks } from '../base/collect-chunks.ts'
import { Shares } from '../base/shares.ts'
import type { CallLog } from './call.ts'

type InnerCall = Parameters<ServerInterceptor>[1]

/** Bytes of one message either way: what every client of the interface uses. */
export const MAX_MESSAGE = 16 * 2 ** 20

/**
 * Connections at once. kubelet has two, every crictl one more; a single process gets at most half of them. One that is
 * idle costs some 50 KiB.
 */
const MAX_CONNECTIONS = 512

/**
 * Calls of all connections, from their headers to the last byte of their reply. kubelet has one worker per pod (at
 * most some 250) and a handful of loops; what is beyond this are clients gone wrong.
 */
const MAX_CALLS = 1000

/**
 * Bytes of requests that are arriving and of replies that nobody has fetched yet, for all connections: about as much
 * as the daemon has otherwise, and while four of the worst clients have their shares of it, there is room for another's
 * largest message.
 */
const MAX_HELD_BYTES = 128 * 2 ** 20

/** Bytes of each direction of a call that do not count as held: nearly all calls need no more. */
const FREE_BYTES = 64 * 1024

/** A client has its request ready when it calls, and the way is inside of one machine. */
const REQUEST_MS = 30_000

/** A client that has asked reads the answer; one that was stopped for so long asks again. */
const REPLY_MS = 60_000

/** For a message of many, either way, where what is behind the client (a pipe, a slow disk) may hold it up. */
const MESSAGE_MS = 5 * 60_000

/** How often it is looked for what is late. */
const LOOK_MS = 5_000

export type ClientLimitsOptions = {
  readonly maxConnections: number
  readonly maxCalls: number
  readonly maxHeldBytes: number
  readonly requestMs: number
  readonly replyMs: number
  readonly messageMs: number
  readonly lookMs: number
}

const LIMITS: ClientLimitsOptions = {
  maxConnections: MAX_CONNECTIONS,
  maxCalls: MAX_CALLS,
  maxHeldBytes: MAX_HELD_BYTES,
  requestMs: REQUEST_MS,
  replyMs: REPLY_MS,
  messageMs: MESSAGE_MS,
  lookMs: LOOK_MS,
}

/** Whose limits a connection is under; a property, since HTTP/2 shows its socket through a proxy. */
const OWNER = Symbol('limits')
type Owner = { readonly limits: ClientLimits; readonly pid: number; readonly socket: Socket }
type OwnedSocket = Socket & { [OWNER]?: Owner }

/** One call, as long as its HTTP/2 stream is open. */
type OpenCall = {
  readonly stream: ServerHttp2Stream
  readonly session: Http2Session
  readonly path: string
  readonly startedAt: number
  readonly pid: number
  /** Whether its connection had a share left for it. */
  readonly counted: boolean
  /** Why it is not served. */
  refusal: string | undefined
  /** How its messages come and go; none of a call that the interface does not have. */
  method: ServerMethodDefinition<unknown, unknown> | undefined
  /** Bytes that count as held by its connection. */
  held: number
  received: number
  /** performance.now() when what waits for the client was handed over. */
  waitingSince: number | undefined
  /** performance.now() when something of its request came, or was not wanted. */
  heardAt: number
  givenUp: boolean
}

/**
 * What clients may cost that connect or ask too often, send slowly, or do not read: a share of connections for each
 * process, a share of calls and of bytes for each connection, and a time for each step that is the client's. It works
 * on the HTTP/2 streams below the calls: the library tells a handler of its call when the request has arrived, and
 * nothing of what becomes of the reply.
 */
export class ClientLimits {
  readonly #log: CallLog
  readonly #limits: ClientLimitsOptions
  readonly #connections: Shares<number>
  readonly #calls: Shares<Http2Session>
  readonly #bytes: Shares<Http2Session>
  /** Connections for which a reply was too much, until they have fetched one. */
  readonly #full = new WeakSet<Http2Session>()
  readonly #open = new Map<ServerHttp2Stream, OpenCall>()
  /** Processes that were told that they have too many connections, until they have none. */
  readonly #refused = new Set<number>()
  /** What was logged of a connection already. */
  readonly #told = new WeakMap<Http2Session, Set<string>>()
  readonly #timer: NodeJS.Timeout

  constructor(log: CallLog, changes: Partial<ClientLimitsOptions> = {}) {
    this.#log = log
    this.#limits = { ...LIMITS, ...changes }
    this.#connections = new Shares(this.#limits.maxConnections)
    this.#calls = new Shares(this.#limits.maxCalls)
    this.#bytes = new Shares(this.#limits.maxHeldBytes)
    this.#timer = setInterval(() => this.#look(), this.#limits.lookMs)
    this.#timer.unref()
    subscribe('http2.server.stream.created', this.#created)
  }

  close(): void {
    clearInterval(this.#timer)
    unsubscribe('http2.server.stream.created', this.#created)
  }

  /** Calls of one connection that can be open: with more, the client waits, since it is told the number. */
  get maxStreams(): number {
    return Math.floor(this.#calls.total / 2)
  }

  get connections(): number {
    return this.#connections.total - this.#connections.free
  }

  get openCalls(): number {
    return this.#open.size
  }

  /** Bytes that all connections hold now. */
  get heldBytes(): number {
    return this.#bytes.total - this.#bytes.free
  }

  /** @returns whether the process may have one more connection; if so, it counts until it is closed */
  admit(socket: Socket, pid: number): boolean {
    if (!this.#connections.take(pid)) {
      if (!this.#refused.has(pid)) {
        const { connections } = this
        this.#log.warn({ pid, connections }, 'connection refused: its process has its share of them already')
      }
      this.#refused.add(pid)
      return false
    }
    const owned: OwnedSocket = socket
    owned[OWNER] = { limits: this, pid, socket }
    socket.once('close', () => {
      this.#connections.give(pid)
      if (!this.#connections.holds(pid)) this.#refused.delete(pid)
    })
    return true
  }

  readonly interceptor: ServerInterceptor = (method, inner) => {
    const call = this.#open.get(streamOf(inner))
    // Its connection broke meanwhile, as the library finds out by itself.
    if (call === undefined) return new ServerInterceptingCall(inner)
    call.method = method
    if (call.refusal === undefined) {
      this.#watchRequest(call, inner)
      return new WatchedCall(inner, {
        mayReply: () => this.#mayReply(call),
        handedOver: () => this.#handedOver(call),
        taken: () => {
          call.waitingSince = undefined
        },
      })
    }
    // The library starts no handler for a call that has its status.
    inner.sendStatus({ code: status.RESOURCE_EXHAUSTED, details: call.refusal })
    return new ServerInterceptingCall(inner)
  }

  /** Of those, too, that never become a call, since the interface does not have them. */
  readonly #created = (message: unknown): void => {
    const { stream, headers } = message as { stream: ServerHttp2Stream; headers: IncomingHttpHeaders }
    const { session } = stream
    if (session === undefined || ownerOf(session)?.limits !== this) return
    const { pid } = ownerOf(session)!
    const call: OpenCall = {
      stream,
      session,
      pid,
      path: headers[':path'] ?? '',
      startedAt: performance.now(),
      counted: this.#calls.take(session),
      refusal: undefined,
      method: undefined,
      held: 0,
      received: 0,
      waitingSince: undefined,
      heardAt: performance.now(),
      givenUp: false,
    }
    const compressed = (headers['grpc-encoding'] ?? 'identity') !== 'identity'
    if (!call.counted)
      call.refusal = `${this.#calls.total - this.#calls.free} calls are open, and this connection has its share`
    // What it will be, nobody knows before.
    else if (compressed && !this.#raise(call, MAX_MESSAGE)) call.refusal = this.#fullTo('unpack this request')
    if (call.refusal !== undefined) this.#tell(call, call.refusal)
    this.#open.set(stream, call)
    stream.once('close', () => {
      this.#open.delete(stream)
      if (call.counted) this.#calls.give(session)
      if (call.held === 0) return
      this.#bytes.give(session, call.held)
      this.#full.delete(session)
    })
  }

  #watchRequest(call: OpenCall, inner: InnerCall): void {
    // The library has paused the stream already: a further listener starts nothing.
    call.stream.on('data', (data: Buffer) => {
      call.heardAt = performance.now()
      // A stream of requests is taken one message after the other.
      if (call.method?.requestStream === true) return
      call.received += data.length
      collectChunks(data.length)
      if (this.#raise(call, call.received - FREE_BYTES)) return
      const details = this.#fullTo('take this request')
      this.#tell(call, details)
      inner.sendStatus({ code: status.RESOURCE_EXHAUSTED, details })
    })
  }

  /** A connection that is full gets no reply made: each would be memory until it is collected. */
  #mayReply(call: OpenCall): boolean {
    if (!this.#full.has(call.session)) return true
    this.#giveUp(call, this.#fullTo('keep a reply that is not read'))
    return false
  }

  /** After something was handed to the stream: what the connection did not take at once is held for it. */
  #handedOver(call: OpenCall): void {
    call.waitingSince ??= performance.now()
    const waiting = call.stream.writableLength
    collectChunks(waiting)
    if (this.#raise(call, waiting - FREE_BYTES)) return
    this.#full.add(call.session)
    this.#giveUp(call, this.#fullTo('keep a reply that is not read'))
  }

  /** @returns whether the connection may hold so much for the call */
  #raise(call: OpenCall, bytes: number): boolean {
    const more = bytes - call.held
    if (more <= 0) return true
    if (!this.#bytes.take(call.session, more)) return false
    call.held += more
    return true
  }

  #fullTo(what: string): string {
    const mib = Math.ceil(this.heldBytes / 2 ** 20)
    return `cannot ${what}: ${mib} MiB are held for clients, and this connection has its share`
  }

  #look(): void {
    const now = performance.now()
    const { requestMs, replyMs, messageMs } = this.#limits
    for (const call of this.#open.values()) {
      const { stream, method, startedAt, waitingSince } = call
      // One that the daemon does not read is not the one to blame.
      if (stream.readableFlowing === false || stream.readableEnded) call.heardAt = now
      if (method?.requestStream === true && now - call.heardAt > messageMs) {
        this.#giveUp(call, 'nothing more of the request comes')
      }
      // Nothing leaves a connection that is not read at all, the end of its calls neither.
      if (call.givenUp) closeConnection(call.session)
      const arriving = method?.requestStream !== true && !stream.readableEnded
      if (arriving && now - startedAt > requestMs) this.#giveUp(call, 'the request does not end')
      const patience = method?.responseStream === true ? messageMs : replyMs
      if (now - (waitingSince ?? now) > patience) this.#giveUp(call, 'the reply is not read')
    }
  }

  #giveUp(call: OpenCall, why: string): void {
    this.#tell(call, why)
    call.givenUp = true
    call.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
  }

  /** Once for each connection and reason: a client gone wrong does not fill the log. */
  #tell({ session, path, pid }: OpenCall, why: string): void {
    const reason = why.replace(/\d+/g, '')
    const told = this.#told.get(session) ?? new Set()
    if (told.has(reason)) return
    this.#told.set(session, told.add(reason))
    this.#log.warn({ method: path.slice(path.lastIndexOf('/') + 1), pid, error: why }, 'call refused')
  }
}

type Watch = { mayReply(): boolean; handedOver(): void; taken(): void }

/** Asks before a message is made for its stream, and tells when it was handed over and when it was taken. */
class WatchedCall extends ServerInterceptingCall {
  readonly #watch: Watch

  constructor(inner: InnerCall, watch: Watch) {
    super(inner)
    this.#watch = watch
  }

  override sendMessage(message: unknown, callback: () => void): void {
    if (!this.#watch.mayReply()) return
    super.sendMessage(message, () => {
      this.#watch.taken()
      callback()
    })
    this.#watch.handedOver()
  }

  override sendStatus(end: Parameters<InnerCall['sendStatus']>[0]): void {
    super.sendStatus(end)
    this.#watch.handedOver()
  }
}

function ownerOf(session: Http2Session): Owner | undefined {
  return (session.socket as OwnedSocket | undefined)?.[OWNER]
}

/** The session alone would wait until what it has begun to write is taken, which nobody does. */
function closeConnection(session: Http2Session): void {
  const socket = ownerOf(session)?.socket
  session.destroy()
  socket?.destroy()
}

/** What is below the library's own call. There is no other way to it, and the version is fixed. */
function streamOf(call: InnerCall): ServerHttp2Stream {
  const { stream } = call as unknown as { readonly stream?: ServerHttp2Stream }
  if (stream === undefined) throw new Error('@grpc/grpc-js: a call of the server has no stream')
  return stream
}
