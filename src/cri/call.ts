import { randomBytes } from 'node:crypto'
import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js'
import { BerthError } from '../base/errors.ts'
import type { Log, LogFields } from '../observe/log.ts'
import { RefusedRequest } from './request-size.ts'
import { type CallStatus, codeName, statusOf } from './status.ts'

export type CallLog = Pick<Log, 'debug' | 'info' | 'warn' | 'error'>

export interface CallObserver {
  /** `code` as in gRPC's documentation (`OK`, `NOT_FOUND`), `method` without its service. */
  onCall(method: string, code: string, seconds: number): void
}

export type CallContext = {
  readonly method: string
  readonly requestId: string
  /** Aborted when the client leaves or its deadline passes; the reason is a BerthError. */
  readonly signal: AbortSignal
}

type Unary<Request, Reply> = (request: Request, context: CallContext) => Reply | Promise<Reply>

/** Must end by itself when the signal is aborted. */
type Streaming<Request, Reply> = (
  request: Request,
  context: CallContext,
) => Iterable<Reply> | AsyncIterable<Reply>

type AnyCall =
  | ServerUnaryCall<unknown, unknown>
  | ServerWritableStream<unknown, unknown>
  | ServerDuplexStream<unknown, unknown>

/** A stream of requests has none that stands for the call. */
function requestOf(call: AnyCall): unknown {
  return 'request' in call ? call.request : undefined
}

type Finished = {
  readonly method: string
  readonly requestId: string
  readonly peer: string
  /** performance.now() */
  readonly started: number
  readonly access: Access
  readonly request: unknown
  readonly outcome: Outcome<unknown>
  /** What was thrown, if anything. */
  readonly cause: unknown
}

type Outcome<Reply> = { readonly reply: Reply } | { readonly failure: CallStatus }

/** Reads are logged at debug: kubelet makes fifteen a second on a full node. */
type Access = 'read' | 'write'

/**
 * Calls at work at once. kubelet has one worker per pod (at most some 250) and a handful of loops; a request may hold
 * 16 MiB, so what is beyond this is a client gone wrong.
 */
const MAX_IN_FLIGHT = 1000

/**
 * The wrapper round every call: admission, context, log line, metric, status. Nothing is served before `open` and
 * nothing begins after `close`.
 */
export class Calls {
  readonly #log: CallLog
  readonly #observer: CallObserver
  readonly #maxInFlight: number
  readonly #requestIds = requestIds()
  readonly #streams = new Set<AbortController>()
  #state: 'recovering' | 'open' | 'closed' = 'recovering'
  #inFlight = 0

  constructor(log: CallLog, observer: CallObserver, maxInFlight = MAX_IN_FLIGHT) {
    this.#log = log
    this.#observer = observer
    this.#maxInFlight = maxInFlight
  }

  get inFlight(): number {
    return this.#inFlight
  }

  open(): void {
    if (this.#state === 'recovering') this.#state = 'open'
  }

  /** Refuses new calls and ends streams; calls at work go on to their end. */
  close(): void {
    this.#state = 'closed'
    for (const stream of this.#streams) stream.abort(shuttingDown())
  }

  /** A call that changes nothing. */
  read<Request, Reply>(handler: Unary<Request, Reply>): handleUnaryCall<Request, Reply> {
    return this.#unary('read', handler)
  }

  write<Request, Reply>(handler: Unary<Request, Reply>): handleUnaryCall<Request, Reply> {
    return this.#unary('write', handler)
  }

  /** A call that answers with many messages. */
  stream<Request, Reply>(
    access: Access,
    handler: Streaming<Request, Reply>,
  ): handleServerStreamingCall<Request, Reply> {
    return call => this.#answer(call, access, context => handler(call.request, context))
  }

  /** A call of many messages either way. */
  duplex<Request, Reply>(
    access: Access,
    handler: Streaming<AsyncIterable<Request>, Reply>,
  ): handleBidiStreamingCall<Request, Reply> {
    return call => {
      // Whoever takes the first message leaves the others to the next reader.
      const requests = call.iterator({ destroyOnReturn: false })
      return this.#answer(call, access, context => handler(requests, context))
    }
  }

  async #answer<Reply>(
    call: ServerWritableStream<unknown, Reply> | ServerDuplexStream<unknown, Reply>,
    access: Access,
    handler: (context: CallContext) => Iterable<Reply> | AsyncIterable<Reply>,
  ): Promise<void> {
    const ended = new AbortController()
    this.#streams.add(ended)
    const outcome = await this.#run(call, access, ended, async context => {
      for await (const message of handler(context)) {
        context.signal.throwIfAborted()
        if (!call.write(message)) await drained(call, context.signal)
      }
      context.signal.throwIfAborted()
    })
    this.#streams.delete(ended)
    if ('failure' in outcome) call.emit('error', outcome.failure)
    else call.end()
  }

  #unary<Request, Reply>(access: Access, handler: Unary<Request, Reply>): handleUnaryCall<Request, Reply> {
    return async (call, callback) => {
      const work = async (context: CallContext) => handler(call.request, context)
      const outcome = await this.#run(call, access, new AbortController(), work)
      if ('failure' in outcome) callback(outcome.failure)
      else callback(null, outcome.reply)
    }
  }

  async #run<Reply>(
    call: AnyCall,
    access: Access,
    abort: AbortController,
    work: (context: CallContext) => Promise<Reply>,
  ): Promise<Outcome<Reply>> {
    const started = performance.now()
    const method = call.getPath().slice(call.getPath().lastIndexOf('/') + 1)
    const requestId = this.#requestIds()
    const request = requestOf(call)
    const leave = () => abort.abort(departure(call))
    const emitter: NodeJS.EventEmitter = call
    emitter.once('cancelled', leave)
    this.#inFlight++
    let outcome: Outcome<Reply>
    let cause: unknown
    try {
      this.#admit()
      if (request instanceof RefusedRequest) throw request.error
      if (call.cancelled) leave()
      outcome = { reply: await work({ method, requestId, signal: abort.signal }) }
    } catch (error) {
      cause = error
      outcome = { failure: statusOf(error) }
    } finally {
      this.#inFlight--
      emitter.off('cancelled', leave)
    }
    const peer = call.getPeer()
    this.#report({ method, requestId, peer, started, access, request, outcome, cause })
    return outcome
  }

  #admit(): void {
    if (this.#state === 'recovering') throw new BerthError('unavailable', 'berth is recovering')
    if (this.#state === 'closed') throw shuttingDown()
    if (this.#inFlight > this.#maxInFlight) {
      throw new BerthError('exhausted', `${this.#maxInFlight} calls are at work already`)
    }
  }

  #report({ method, requestId, peer, started, access, request, outcome, cause }: Finished): void {
    const ms = performance.now() - started
    const code = 'failure' in outcome ? outcome.failure.code : status.OK
    this.#observer.onCall(method, codeName(code), ms / 1000)
    const reply = 'reply' in outcome ? outcome.reply : undefined
    const fields: LogFields = {
      requestId,
      method,
      peer,
      ...subjectsIn(request),
      ...subjectsIn(reply),
      code: codeName(code),
      ms: Math.round(ms * 10) / 10,
    }
    if ('reply' in outcome) this.#log[access === 'read' ? 'debug' : 'info'](fields, 'call served')
    else if (code === status.CANCELLED) this.#log.info(fields, 'call given up by its caller')
    else this.#log[code === status.INTERNAL ? 'error' : 'warn']({ ...fields, error: cause }, 'call failed')
  }
}

function shuttingDown(): BerthError {
  return new BerthError('unavailable', 'berth is shutting down')
}

/** A request counts its time from when it was sent; it may have been on its way, or in a queue, for this long. */
const ON_ITS_WAY_MS = 1000

/** Whether the client went away or its time was up: the library announces both in the same way. */
function departure(call: AnyCall): BerthError {
  const late = Number(call.getDeadline()) <= Date.now() + ON_ITS_WAY_MS
  if (late) return new BerthError('deadline', "the caller's deadline passed")
  return new BerthError('cancelled', 'the caller gave up')
}

function drained(call: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const abort = () => {
    call.off('drain', go)
    reject(signal.reason)
  }
  const go = () => {
    signal.removeEventListener('abort', abort)
    resolve()
  }
  call.once('drain', go)
  signal.addEventListener('abort', abort, { once: true })
  return promise
}

/** Unique on this node for all practical purposes, and short enough to read aloud. */
function requestIds(): () => string {
  const prefix = randomBytes(3).toString('hex')
  let count = 0
  return () => `${prefix}-${++count}`
}

/** What a message is about, for the log line, by the members that many messages of the interface share. */
function subjectsIn(message: unknown): LogFields {
  const { pod_sandbox_id, container_id, image, image_ref, config } = (message ?? {}) as Record<
    string,
    unknown
  >
  const { name, namespace } = (config as { metadata?: Record<string, unknown> } | null)?.metadata ?? {}
  const reference = (image as { image?: unknown } | null | undefined)?.image ?? image ?? image_ref
  return {
    ...(isText(pod_sandbox_id) ? { podId: pod_sandbox_id } : {}),
    ...(isText(container_id) ? { containerId: container_id } : {}),
    ...(isText(reference) ? { image: reference } : {}),
    ...(isText(name) ? { name: isText(namespace) ? `${namespace}/${name}` : name } : {}),
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}
